// agent/outputs/relp.cpp - the sending side of RELP (version 0), over TCP or TLS: every message is
// acknowledged by the receiver itself. SPDX-License-Identifier: Apache-2.0
//
// Frames:  TXNR SP COMMAND SP DATALEN [SP DATA] LF, transaction numbers 1 to 999,999,999, answered by
//          TXNR "rsp" DATALEN "200 OK"; number 0 is a hint of the receiver ("serverclose").
// Limits:  window messages wait for their acknowledgement; more: busy.
// Why not librelp's client (read in 1.11 of Debian 12 and in 1.13): it cannot say which message has arrived.
// - relpSessSendSyslog() passes no response handler to relpSessSendCommand(); the unacknowledged list of the
//   session is private, and no function of librelp.h tells its length. A cursor has nothing to advance by.
// - Answers are read inside relpCltSendSyslog() only (relpSessWaitState(), relpSessRcvData()): the last
//   messages of an idle output would stay unknown until the next one.
// - The handler of "rsp" takes the message off that list (relpSessGetUnacked()) before it looks at the code,
//   and destroys it whatever the code was: what the receiver refused is not sent again.
// - It blocks: relpSessWaitState() polls for the whole timeout while the window is full,
//   relpSendbufSendAll() in relpTcpWaitWriteable(), relpCltConnect() in getaddrinfo() and poll().
// Tested against librelp's server, in rsyslog's imrelp: tests/netns/syslog_test.cpp, tls_test.cpp and
// tests/reliability.
#include <array>
#include <charconv>
#include <deque>

#include "agent/outputs/send_buffer.h"

namespace egresswatch::outputs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t window = 128;                  // librelp's own
constexpr std::uint32_t number_max = 999'999'999;    // nine digits in a frame, then from 1 again
constexpr std::size_t answer_bytes_max = 64 * 1024;  // of one frame from the receiver; longer: not RELP
constexpr std::string_view offer =
    "relp_version=0\nrelp_software=egresswatch," EGRESSWATCH_VERSION "\ncommands=syslog";

struct Answer {
    std::uint32_t number = 0;
    std::string_view command;
    std::string_view data;
};

enum class Parsed : std::uint8_t { whole, incomplete, nonsense };

// One frame from the front of `bytes`; `length`: how long it was.
Parsed parse_answer(std::string_view bytes, Answer& answer, std::size_t& length) {
    const auto header_end = bytes.find_first_of(" \n", bytes.find(' ') + 1);
    if (bytes.size() > answer_bytes_max) return Parsed::nonsense;
    const auto first = bytes.find(' ');
    if (first == std::string_view::npos || header_end == std::string_view::npos) return Parsed::incomplete;
    const auto length_end = bytes.find_first_of(" \n", header_end + 1);
    if (length_end == std::string_view::npos) return Parsed::incomplete;
    std::size_t data_bytes = 0;
    const auto number_ok = std::from_chars(bytes.data(), bytes.data() + first, answer.number);
    const auto length_ok =
        std::from_chars(bytes.data() + header_end + 1, bytes.data() + length_end, data_bytes);
    if (number_ok.ec != std::errc{} || number_ok.ptr != bytes.data() + first || length_ok.ec != std::errc{} ||
        length_ok.ptr != bytes.data() + length_end || data_bytes > answer_bytes_max)
        return Parsed::nonsense;
    answer.command = bytes.substr(first + 1, header_end - first - 1);
    const std::size_t data_at = data_bytes == 0 ? length_end : length_end + 1;
    if (bytes.size() < data_at + data_bytes + 1) {
        // "0 serverclose 0" may come without more.
        return Parsed::incomplete;
    }
    answer.data = bytes.substr(data_at, data_bytes);
    length = data_at + data_bytes + 1;
    return bytes[length - 1] == '\n' ? Parsed::whole : Parsed::nonsense;
}

class RelpTransport final : public Transport {
public:
    RelpTransport(std::unique_ptr<ByteStream> stream, std::string where)
        : stream_(std::move(stream)), where_(std::move(where)) {}

    [[nodiscard]] bool connecting() const noexcept override { return !open_; }

    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        poll_with({stream_->fd(), stream_->events(!buffer_.empty()), 0}, others, at_most);
    }

    [[nodiscard]] std::expected<void, TransportError> work() override {
        if (stream_->connecting()) {
            if (auto went = stream_->advance(); !went) return went;
            if (stream_->connecting()) return {};
        }
        if (!std::exchange(offered_, true)) put("open", offer);
        if (auto written = flush(); !written) return written;
        return read_answers();
    }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        if (waiting_.size() >= window || buffer_.full()) {
            if (auto written = flush(); !written) return std::unexpected(written.error());
            return Taken::busy;
        }
        waiting_.push_back({put("syslog", message), false});
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override { return buffer_.write_to(*stream_); }
    [[nodiscard]] std::uint64_t confirmed() override { return confirmed_; }
    [[nodiscard]] bool proves_delivery() const noexcept override { return true; }

    [[nodiscard]] bool finish(std::chrono::milliseconds timeout) noexcept override {
        const auto deadline = Clock::now() + timeout;
        while (!waiting_.empty()) {
            if (!work()) return false;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
            if (waiting_.empty()) break;
            if (left.count() <= 0) return false;
            wait({}, left);
        }
        put("close", {});
        (void)flush();
        stream_->end();
        return true;
    }

private:
    struct Waiting {
        std::uint32_t number = 0;
        bool answered = false;
    };

    std::uint32_t put(std::string_view command, std::string_view data) {
        const std::uint32_t number = next_;
        next_ = next_ == number_max ? 1 : next_ + 1;
        buffer_.append(std::to_string(number) + " ");
        buffer_.append(command);
        buffer_.append(" " + std::to_string(data.size()));
        if (!data.empty()) buffer_.append(" ");
        buffer_.append(data);
        buffer_.append("\n");
        return number;
    }

    [[nodiscard]] std::expected<void, TransportError> read_answers() {
        std::array<char, 16 * 1024> chunk{};
        while (true) {
            const auto got = stream_->read(chunk);
            if (!got) return std::unexpected(got.error());
            if (*got == 0) return {};
            received_.append(chunk.data(), *got);
            std::size_t at = 0;
            while (at < received_.size()) {
                Answer answer;
                std::size_t length = 0;
                const Parsed parsed = parse_answer(std::string_view(received_).substr(at), answer, length);
                if (parsed == Parsed::incomplete) break;
                if (parsed == Parsed::nonsense)
                    return std::unexpected(TransportError{where_ + ": does not speak RELP"});
                if (auto fine = take(answer); !fine) return fine;
                at += length;
            }
            received_.erase(0, at);
        }
    }

    [[nodiscard]] std::expected<void, TransportError> take(const Answer& answer) {
        if (answer.number == 0 || answer.command == "serverclose")
            return std::unexpected(TransportError{where_ + ": the receiver closes the session"});
        if (answer.command != "rsp") return std::unexpected(TransportError{where_ + ": does not speak RELP"});
        const bool fine = answer.data.starts_with("200");
        if (!open_) {
            const auto commands = answer.data.find("commands=");
            if (!fine || commands == std::string_view::npos ||
                answer.data.find("syslog", commands) == std::string_view::npos)
                return std::unexpected(TransportError{where_ + ": the receiver refuses the session"});
            open_ = true;
            return {};
        }
        if (!fine)
            return std::unexpected(TransportError{
                where_ + ": the receiver refuses a message: " +
                std::string(answer.data.substr(0, std::min<std::size_t>(answer.data.find('\n'), 80)))});
        for (auto& waiting : waiting_)  // nearly always the first one
            if (waiting.number == answer.number) {
                waiting.answered = true;
                break;
            }
        while (!waiting_.empty() && waiting_.front().answered) {
            waiting_.pop_front();
            ++confirmed_;
        }
        return {};
    }

    std::unique_ptr<ByteStream> stream_;
    std::string where_;
    SendBuffer buffer_;
    std::string received_;
    std::deque<Waiting> waiting_;
    std::uint32_t next_ = 1;
    std::uint64_t confirmed_ = 0;
    bool offered_ = false;
    bool open_ = false;
};

}  // namespace

OpenedTransport open_relp(const OutputConfig& config) {
    auto stream = open_byte_stream(config);
    if (!stream) return std::unexpected(stream.error());
    return std::make_unique<RelpTransport>(std::move(*stream), destination_text(config));
}

}  // namespace egresswatch::outputs
