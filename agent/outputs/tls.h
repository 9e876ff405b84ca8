// agent/outputs/tls.h - what TLS 1.2 and later must be like here (RFC 5425), for every transport that uses
// it. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/types.h>

#include <expected>
#include <string>
#include <string_view>

#include "agent/outputs/output_config.h"

namespace egresswatch::outputs {

// "sha-256:AB:CD:..." as RFC 5425 section 4.2.2 writes it; sha-1 too, which that section makes mandatory.
struct Fingerprint {
    std::string hash;   // OpenSSL's name: "SHA256", "SHA1"
    std::string bytes;  // the digest
};
[[nodiscard]] std::expected<Fingerprint, std::string> parse_fingerprint(std::string_view text);

// The receiver's certificate must lead to a trusted root, or, where fingerprints are pinned, be one of those.
// Our own certificate is loaded. The error names the file.
[[nodiscard]] std::expected<void, std::string> configure_tls(ssl_ctx_st* context, const TlsConfig& config);

[[nodiscard]] std::string openssl_error();  // of this thread's queue, emptied

}  // namespace egresswatch::outputs
