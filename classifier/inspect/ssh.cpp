// classifier/inspect/ssh.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/ssh.h"

#include <algorithm>

namespace egresswatch::inspect {
namespace {

constexpr std::uint8_t message_kexinit = 20;
constexpr std::size_t cookie_bytes = 16;
constexpr std::size_t packet_bytes_max = 35000;  // RFC 4253 section 6.1
constexpr std::string_view banner_start = "SSH-";

std::string_view name_list(Bytes& bytes) noexcept {
    return text_of(bytes.take(bytes.u32()));
}

bool printable(std::string_view text) noexcept {
    return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}

}  // namespace

Verdict parse_ssh(ByteSpan stream, SshHello& hello) noexcept {
    hello = {};
    std::string_view text = text_of(stream);
    // A server may send lines of another kind first; a client does not.
    std::size_t start = 0;
    while (!text.substr(start).starts_with(banner_start)) {
        const std::string_view rest = text.substr(start, banner_start.size());
        if (rest.size() < banner_start.size() && banner_start.starts_with(rest))
            return start <= ssh_preamble_bytes_max ? Verdict::incomplete : Verdict::other;
        const std::size_t end = text.find('\n', start);
        if (end == std::string_view::npos || end >= ssh_preamble_bytes_max) return Verdict::other;
        if (!printable(text.substr(start, end - start - (end > start && text[end - 1] == '\r' ? 1 : 0))))
            return Verdict::other;
        start = end + 1;
    }
    const std::size_t end = text.find('\n', start);
    if (end == std::string_view::npos)
        return text.size() - start > ssh_banner_bytes_max ? Verdict::other : Verdict::incomplete;
    std::string_view banner = text.substr(start, end - start);
    if (banner.ends_with('\r')) banner.remove_suffix(1);
    if (banner.size() > ssh_banner_bytes_max || !printable(banner)) return Verdict::other;
    hello.banner = banner;

    Bytes bytes(stream.subspan(end + 1));
    if (bytes.left() < 6) return Verdict::incomplete;
    const std::size_t packet_bytes = bytes.u32();
    (void)bytes.u8();  // length of the padding
    if (packet_bytes > packet_bytes_max || bytes.u8() != message_kexinit) return Verdict::other;
    if (packet_bytes < 2 || bytes.left() < packet_bytes - 2) return Verdict::incomplete;
    Bytes packet(bytes.take(packet_bytes - 2));
    packet.skip(cookie_bytes);
    hello.kex = name_list(packet);
    hello.host_key = name_list(packet);
    hello.encryption_out = name_list(packet);
    hello.encryption_in = name_list(packet);
    hello.mac_out = name_list(packet);
    hello.mac_in = name_list(packet);
    hello.compression_out = name_list(packet);
    hello.compression_in = name_list(packet);
    if (!packet.ok()) return Verdict::other;
    hello.has_algorithms = true;
    return Verdict::match;
}

}  // namespace egresswatch::inspect
