// classifier/inspect/certificate.cpp - the name in a server's certificate.
// SPDX-License-Identifier: Apache-2.0
#include <openssl/x509v3.h>

#include <memory>

#include "classifier/inspect/flow_inspector.h"

namespace egresswatch::inspect {
namespace {

std::string_view view_of(const ASN1_STRING* text) noexcept {
    const unsigned char* bytes = ASN1_STRING_get0_data(text);
    const int length = ASN1_STRING_length(text);
    if (bytes == nullptr || length <= 0) return {};
    return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length)};
}

// A certificate may name a wildcard.
bool plausible(std::string_view name) noexcept {
    return plausible_host_name(name.starts_with("*.") ? name.substr(2) : name);
}

}  // namespace

ShortText<253> certificate_name(ByteSpan der) noexcept {
    ShortText<253> out;
    const unsigned char* at = der.data();
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        d2i_X509(nullptr, &at, static_cast<long>(der.size())), &X509_free);
    if (!certificate) return out;
    const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> alternatives(
        static_cast<GENERAL_NAMES*>(
            X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)),
        &GENERAL_NAMES_free);
    for (int i = 0; alternatives && i < sk_GENERAL_NAME_num(alternatives.get()); ++i) {
        const GENERAL_NAME* entry = sk_GENERAL_NAME_value(alternatives.get(), i);
        if (entry->type != GEN_DNS || !plausible(view_of(entry->d.dNSName))) continue;
        out.assign(view_of(entry->d.dNSName));
        return out;
    }
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (index < 0) return out;
    const std::string_view name = view_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    if (plausible(name)) out.assign(name);
    return out;
}

}  // namespace egresswatch::inspect
