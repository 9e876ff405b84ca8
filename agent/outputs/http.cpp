// agent/outputs/http.cpp - JSON in bulk to an HTTP(S) endpoint: POST of an array or of lines (NDJSON), by
// libcurl. SPDX-License-Identifier: Apache-2.0
//
// Confirmed: by an answer of 2xx, and by nothing else; redirects are not followed.
// Refused:   413 and 422 and 400 halve the batch; one record that is refused alone is given up and counted.
// Every
//            other answer is an error: the batch is sent again after the backoff, or after Retry-After if
//            longer.
// Limits:    one request at a time, of batch_records and batch_bytes_max at most.
#include <curl/curl.h>
#include <openssl/ssl.h>

#include <array>
#include <deque>
#include <fstream>
#include <mutex>

#include "agent/outputs/socket.h"
#include "agent/outputs/tls.h"

namespace egresswatch::outputs {
namespace {

constexpr std::size_t batch_bytes_max = 1 << 20;
constexpr long request_timeout_s = 60;
constexpr long connect_timeout_s = 10;
constexpr std::chrono::seconds retry_after_max{3'600};
constexpr std::size_t answer_bytes_kept = 200;  // of the body of an error, for the status

struct EasyDeleter {
    void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
    void operator()(CURLM* multi) const noexcept { curl_multi_cleanup(multi); }
};
struct ListDeleter {
    void operator()(curl_slist* list) const noexcept { curl_slist_free_all(list); }
};

std::size_t keep_answer(char* data, std::size_t, std::size_t bytes, void* into) {
    auto& answer = *static_cast<std::string*>(into);
    answer.append(data, std::min(bytes, answer_bytes_kept - std::min(answer.size(), answer_bytes_kept)));
    return bytes;
}

CURLcode configure_session(CURL*, void* context, void* config) {
    return configure_tls(static_cast<SSL_CTX*>(context), *static_cast<const TlsConfig*>(config))
               ? CURLE_OK
               : CURLE_SSL_CERTPROBLEM;
}

class HttpTransport final : public Transport {
public:
    explicit HttpTransport(const OutputConfig& config) : config_(config), batch_max_(config.batch_records) {}

    [[nodiscard]] std::expected<void, TransportError> open() {
        static std::once_flag once;
        std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
        easy_.reset(curl_easy_init());
        multi_.reset(curl_multi_init());
        if (!easy_ || !multi_) return std::unexpected(TransportError{"libcurl does not start"});
        if (auto read = read_headers(); !read) return read;
        CURL* easy = easy_.get();
        curl_easy_setopt(easy, CURLOPT_URL, config_.address.c_str());
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
        curl_easy_setopt(easy, CURLOPT_USERAGENT, "egresswatch/" EGRESSWATCH_VERSION);
        curl_easy_setopt(easy, CURLOPT_TIMEOUT, request_timeout_s);
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, connect_timeout_s);
        curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &keep_answer);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer_);
        curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_.data());
        if (config_.tls) {
            curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, &configure_session);
            curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, &*config_.tls);
            // Its own trust store must not stand beside the one that configure_tls() loads.
            if (!config_.tls->ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, nullptr);
            if (!config_.tls->ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
            if (!config_.tls->fingerprints.empty()) curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
        }
        return {};
    }

    ~HttpTransport() override {
        if (running_) curl_multi_remove_handle(multi_.get(), easy_.get());
    }
    HttpTransport(const HttpTransport&) = delete;
    HttpTransport& operator=(const HttpTransport&) = delete;

    // Whether there is anybody shows the first request.
    [[nodiscard]] bool connecting() const noexcept override { return false; }

    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        if (!running_) return poll_with({-1, 0, 0}, others, at_most);
        std::array<curl_waitfd, 4> more{};
        const std::size_t count = std::min(others.size(), more.size());
        for (std::size_t i = 0; i < count; ++i)
            more[i] = {others[i].fd, others[i].events, 0};  // CURL_WAIT_POLLIN is POLLIN, and so on
        // libcurl ignores negative descriptors no more than poll() does: they never become ready.
        curl_multi_poll(multi_.get(), more.data(), static_cast<unsigned>(count),
                        static_cast<int>(at_most.count()), nullptr);
        for (std::size_t i = 0; i < count; ++i) others[i].revents = more[i].revents;
    }

    [[nodiscard]] std::expected<void, TransportError> work() override {
        if (!running_) return {};
        int still = 0;
        if (const CURLMcode code = curl_multi_perform(multi_.get(), &still); code != CURLM_OK)
            return std::unexpected(TransportError{what() + curl_multi_strerror(code)});
        int left = 0;
        while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
            if (message->msg != CURLMSG_DONE) continue;
            const CURLcode result = message->data.result;
            curl_multi_remove_handle(multi_.get(), easy_.get());
            running_ = false;
            if (auto fine = judge(result); !fine) return fine;
            return flush();
        }
        return {};
    }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        if (queue_.size() >= config_.batch_records || queue_bytes_ >= batch_bytes_max) {
            if (auto flushed = flush(); !flushed) return std::unexpected(flushed.error());
            return Taken::busy;
        }
        queue_.emplace_back(message);
        queue_bytes_ += message.size();
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override {
        if (running_ || queue_.empty()) return {};
        batch_ = std::min(batch_max_, queue_.size());
        body_.clear();
        if (config_.bulk == Bulk::array) body_ += '[';
        for (std::size_t i = 0; i < batch_; ++i) {
            if (config_.bulk == Bulk::array && i != 0) body_ += ',';
            body_ += queue_[i];
            if (config_.bulk == Bulk::lines) body_ += '\n';
        }
        if (config_.bulk == Bulk::array) body_ += ']';
        answer_.clear();
        error_[0] = '\0';
        curl_easy_setopt(easy_.get(), CURLOPT_POSTFIELDS, body_.data());
        curl_easy_setopt(easy_.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body_.size()));
        if (const CURLMcode code = curl_multi_add_handle(multi_.get(), easy_.get()); code != CURLM_OK)
            return std::unexpected(TransportError{what() + curl_multi_strerror(code)});
        running_ = true;
        return work();
    }

    [[nodiscard]] std::uint64_t confirmed() override { return confirmed_; }
    [[nodiscard]] std::uint64_t given_up() const noexcept override { return given_up_; }
    [[nodiscard]] bool proves_delivery() const noexcept override { return true; }

    [[nodiscard]] bool finish(std::chrono::milliseconds timeout) noexcept override {
        const auto deadline = std::chrono::steady_clock::now() + timeout;
        while (true) {
            if (!flush() || !work()) return false;
            if (queue_.empty() && !running_) return true;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            if (left.count() <= 0) return false;
            wait({}, left);
        }
    }

private:
    [[nodiscard]] std::string what() const { return "POST " + config_.address + ": "; }

    // "Authorization: Bearer ..." and the like, one a line: a secret belongs into a file of its own.
    [[nodiscard]] std::expected<void, TransportError> read_headers() {
        const auto add = [this](const std::string& header) {
            headers_.reset(curl_slist_append(headers_.release(), header.c_str()));
        };
        add(config_.bulk == Bulk::array ? "Content-Type: application/json"
                                        : "Content-Type: application/x-ndjson");
        add("Expect:");  // no waiting for "100 Continue"
        if (config_.header_file.empty()) return {};
        std::ifstream file(config_.header_file);
        if (!file) return std::unexpected(TransportError{"cannot read header_file " + config_.header_file});
        for (std::string line; std::getline(file, line);) {
            while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
            if (!line.empty()) add(line);
        }
        return {};
    }

    [[nodiscard]] std::expected<void, TransportError> judge(CURLcode result) {
        if (result != CURLE_OK)
            return std::unexpected(
                TransportError{what() + (error_[0] != '\0' ? error_.data() : curl_easy_strerror(result))});
        long status = 0;
        curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200 && status < 300) {
            settle(batch_);
            batch_max_ = std::min(batch_max_ * 2, config_.batch_records);
            return {};
        }
        if (status == 400 || status == 413 || status == 422) {
            if (batch_ > 1) {
                batch_max_ = (batch_ + 1) / 2;
                return {};
            }
            ++given_up_;
            settle(1);
            return {};
        }
        curl_off_t wish = 0;
        curl_easy_getinfo(easy_.get(), CURLINFO_RETRY_AFTER, &wish);
        std::string said;
        for (const char c : answer_) said += c >= 32 && c < 127 ? c : ' ';
        return std::unexpected(TransportError{
            what() + "HTTP status " + std::to_string(status) + (said.empty() ? "" : ": " + said),
            std::min<std::chrono::seconds>(std::chrono::seconds{wish}, retry_after_max)});
    }

    void settle(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) queue_bytes_ -= queue_[i].size();
        queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
        confirmed_ += count;
    }

    OutputConfig config_;
    std::unique_ptr<curl_slist, ListDeleter> headers_;
    std::unique_ptr<CURLM, MultiDeleter> multi_;
    std::unique_ptr<CURL, EasyDeleter> easy_;
    std::deque<std::string> queue_;  // taken, not confirmed; the first `batch_` are on their way
    std::size_t queue_bytes_ = 0;
    std::size_t batch_ = 0;
    std::size_t batch_max_;  // smaller for a while after a refused batch
    std::string body_;
    std::string answer_;
    std::array<char, CURL_ERROR_SIZE> error_{};
    bool running_ = false;
    std::uint64_t confirmed_ = 0;
    std::uint64_t given_up_ = 0;
};

}  // namespace

OpenedTransport open_http(const OutputConfig& config) {
    auto transport = std::make_unique<HttpTransport>(config);
    if (auto opened = transport->open(); !opened) return std::unexpected(opened.error());
    return transport;
}

}  // namespace egresswatch::outputs
