// agent/outputs/tls.cpp - see tls.h; and the byte stream of syslog over TLS and of RELP over TLS.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/outputs/socket.h"

namespace egresswatch::outputs {
namespace {

struct ContextDeleter {
    void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
};
struct SessionDeleter {
    void operator()(SSL* session) const noexcept { SSL_free(session); }
};

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// The pinned fingerprints of a context: OpenSSL frees them with it.
using Pins = std::vector<Fingerprint>;

void free_pins(void*, void* pins, CRYPTO_EX_DATA*, int, long, void*) {
    delete static_cast<Pins*>(pins);
}

int pins_index() {
    static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, &free_pins);
    return index;
}

bool matches(X509* certificate, const Fingerprint& pin) {
    const EVP_MD* hash = EVP_get_digestbyname(pin.hash.c_str());
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    return hash != nullptr && X509_digest(certificate, hash, digest.data(), &length) == 1 &&
           length == pin.bytes.size() && std::memcmp(digest.data(), pin.bytes.data(), length) == 0;
}

// In place of the path validation: the certificate is one that the operator named, or it is not.
int verify_by_pin(X509_STORE_CTX* store, void* pins) {
    X509* certificate = X509_STORE_CTX_get0_cert(store);
    for (const auto& pin : *static_cast<const Pins*>(pins))
        if (certificate != nullptr && matches(certificate, pin)) {
            X509_STORE_CTX_set_error(store, X509_V_OK);
            return 1;
        }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

class TlsStream final : public TcpStream {
public:
    TlsStream(Connecting connecting, std::string where, std::unique_ptr<SSL_CTX, ContextDeleter> context,
              std::unique_ptr<SSL, SessionDeleter> session)
        : TcpStream(std::move(connecting), std::move(where)),
          context_(std::move(context)),
          session_(std::move(session)) {
        SSL_set_fd(session_.get(), socket_.get());
    }

    [[nodiscard]] bool connecting() const noexcept override { return connecting_ || !agreed_; }

    [[nodiscard]] short events(bool write_wanted) const noexcept override {
        if (connecting_ || wants_write_) return POLLIN | POLLOUT;
        return static_cast<short>(POLLIN | (agreed_ && write_wanted && !write_wants_read_ ? POLLOUT : 0));
    }

    [[nodiscard]] std::expected<void, TransportError> advance() override {
        if (connecting_) {
            if (auto went = TcpStream::advance(); !went || connecting_) return went;
        }
        if (agreed_) return {};
        ERR_clear_error();
        const int result = SSL_connect(session_.get());
        if (result == 1) {
            agreed_ = true;
            wants_write_ = false;
            return {};
        }
        if (again(result)) return {};
        return std::unexpected(failure("TLS with", result));
    }

    [[nodiscard]] std::expected<std::size_t, TransportError> write(std::string_view bytes) override {
        std::size_t put = 0;
        ERR_clear_error();
        const int result = SSL_write_ex(session_.get(), bytes.data(), bytes.size(), &put);
        write_wants_read_ = false;
        if (result == 1) return put;
        if (again(result)) {
            write_wants_read_ = !wants_write_;
            return 0;
        }
        return std::unexpected(failure("send to", result));
    }

    [[nodiscard]] std::expected<std::size_t, TransportError> read(std::span<char> into) override {
        if (!agreed_) return 0;
        std::size_t got = 0;
        ERR_clear_error();
        const int result = SSL_read_ex(session_.get(), into.data(), into.size(), &got);
        if (result == 1) return got;
        if (again(result)) return 0;
        if (SSL_get_error(session_.get(), result) == SSL_ERROR_ZERO_RETURN) {
            ended_ = true;
            return std::unexpected(TransportError{where_ + ": closed by the receiver"});
        }
        return std::unexpected(failure("receive from", result));
    }

    [[nodiscard]] std::uint64_t wire_bytes() const noexcept override {
        return BIO_number_written(SSL_get_wbio(session_.get()));
    }

    void end() noexcept override {
        // close_notify, behind the last byte. Not every receiver answers with its own before it closes.
        SSL_set_options(session_.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
        if (agreed_) SSL_shutdown(session_.get());
        TcpStream::end();
    }

private:
    // Nothing is wrong: the socket has to become readable or writable first.
    [[nodiscard]] bool again(int result) {
        const int error = SSL_get_error(session_.get(), result);
        wants_write_ = error == SSL_ERROR_WANT_WRITE;
        return error == SSL_ERROR_WANT_READ || wants_write_;
    }

    [[nodiscard]] TransportError failure(const char* operation, int result) {
        const std::string what = std::string(operation) + " " + where_ + ": ";
        const long verified = SSL_get_verify_result(session_.get());
        if (!agreed_ && verified == X509_V_ERR_CERT_REJECTED)
            return {what + "the receiver's certificate is not one of the pinned fingerprints"};
        if (!agreed_ && verified != X509_V_OK)
            return {what + "the receiver's certificate: " + X509_verify_cert_error_string(verified)};
        if (SSL_get_error(session_.get(), result) == SSL_ERROR_SYSCALL && ERR_peek_error() == 0)
            return {what + (errno != 0 ? std::strerror(errno) : "closed by the receiver")};
        return {what + openssl_error()};
    }

    std::unique_ptr<SSL_CTX, ContextDeleter> context_;
    std::unique_ptr<SSL, SessionDeleter> session_;
    bool agreed_ = false;
    bool wants_write_ = false;
    bool write_wants_read_ = false;
};

// RFC 5425 section 5.2 with RFC 6125: the subjectAltName decides, the common name never.
bool expect_name(SSL* session, const std::string& name) {
    std::array<unsigned char, sizeof(in6_addr)> ignored{};
    const bool address = ::inet_pton(AF_INET, name.c_str(), ignored.data()) == 1 ||
                         ::inet_pton(AF_INET6, name.c_str(), ignored.data()) == 1;
    if (address) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), name.c_str()) == 1;
    SSL_set_hostflags(session, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set1_host(session, name.c_str()) == 1 && SSL_set_tlsext_host_name(session, name.c_str()) == 1;
}

}  // namespace

std::expected<Fingerprint, std::string> parse_fingerprint(std::string_view text) {
    Fingerprint out;
    std::size_t bytes = 0;
    if (text.starts_with("sha-256:")) {
        out.hash = "SHA256";
        bytes = 32;
        text.remove_prefix(8);
    } else if (text.starts_with("sha-1:")) {
        out.hash = "SHA1";
        bytes = 20;
        text.remove_prefix(6);
    } else {
        return std::unexpected("does not begin with sha-256: or sha-1:");
    }
    while (!text.empty()) {
        const int high = hex_digit(text[0]);
        const int low = text.size() > 1 ? hex_digit(text[1]) : -1;
        if (high < 0 || low < 0 || (text.size() > 2 && text[2] != ':') || text.size() == 3)
            return std::unexpected("is not made of pairs of hexadecimal digits with colons between them");
        out.bytes += static_cast<char>(high * 16 + low);
        text.remove_prefix(std::min<std::size_t>(3, text.size()));
    }
    if (out.bytes.size() != bytes)
        return std::unexpected("has " + std::to_string(out.bytes.size()) + " bytes instead of " +
                               std::to_string(bytes));
    return out;
}

std::string openssl_error() {
    std::string out;
    while (const unsigned long error = ERR_get_error()) {
        if (!out.empty()) continue;  // the first one is the cause
        const char* reason = ERR_reason_error_string(error);
        out = reason != nullptr ? reason : "error " + std::to_string(error);
    }
    return out.empty() ? "unknown error" : out;
}

std::expected<void, std::string> configure_tls(SSL_CTX* context, const TlsConfig& config) {
    ERR_clear_error();
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    if (!config.fingerprints.empty()) {
        auto pins = std::make_unique<Pins>();
        for (const auto& text : config.fingerprints) {
            auto pin = parse_fingerprint(text);
            if (!pin) return std::unexpected("fingerprint " + text + " " + pin.error());
            pins->push_back(std::move(*pin));
        }
        SSL_CTX_set_cert_verify_callback(context, &verify_by_pin, pins.get());
        SSL_CTX_set_ex_data(context, pins_index(), pins.release());
    } else if (!config.ca_file.empty()) {
        if (SSL_CTX_load_verify_file(context, config.ca_file.c_str()) != 1)
            return std::unexpected("read " + config.ca_file + ": " + openssl_error());
    } else if (SSL_CTX_set_default_verify_paths(context) != 1) {
        return std::unexpected("the system's certificates: " + openssl_error());
    }
    if (config.certificate_file.empty()) return {};
    if (SSL_CTX_use_certificate_chain_file(context, config.certificate_file.c_str()) != 1)
        return std::unexpected("read " + config.certificate_file + ": " + openssl_error());
    if (SSL_CTX_use_PrivateKey_file(context, config.key_file.c_str(), SSL_FILETYPE_PEM) != 1)
        return std::unexpected("read " + config.key_file + ": " + openssl_error());
    return {};
}

std::expected<std::unique_ptr<ByteStream>, TransportError> wrap_in_tls(Connecting connecting,
                                                                       const OutputConfig& config) {
    const std::string where = destination_text(config);
    std::unique_ptr<SSL_CTX, ContextDeleter> context(SSL_CTX_new(TLS_client_method()));
    if (!context) return std::unexpected(TransportError{"TLS: " + openssl_error()});
    if (auto done = configure_tls(context.get(), *config.tls); !done)
        return std::unexpected(TransportError{"TLS with " + where + ": " + done.error()});
    std::unique_ptr<SSL, SessionDeleter> session(SSL_new(context.get()));
    const std::string& name = config.tls->server_name.empty() ? config.address : config.tls->server_name;
    // A pinned certificate may have any name; the receiver is still told which one we want (SNI).
    if (!session || (config.tls->fingerprints.empty() && !expect_name(session.get(), name)))
        return std::unexpected(TransportError{"TLS with " + where + ": " + openssl_error()});
    return std::make_unique<TlsStream>(std::move(connecting), where, std::move(context), std::move(session));
}

}  // namespace egresswatch::outputs
