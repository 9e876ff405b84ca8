// classifier/inspect/ssh.h - what an SSH side says before encryption begins.
//
// In:      the first bytes of one direction of a stream.   Out: its banner and the algorithms it offers.
// Source:  RFC 4253 sections 4.2 (identification string), 6 (binary packet), 7.1 (SSH_MSG_KEXINIT).
// Limits:  banner_bytes_max; preamble_bytes_max of lines before a server's banner.
// Threads: any. No allocation, no exceptions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

inline constexpr std::size_t ssh_banner_bytes_max = 255;  // with its line end
inline constexpr std::size_t ssh_preamble_bytes_max = 1024;

struct SshHello {
    std::string_view banner;  // "SSH-2.0-OpenSSH_9.2p1 Debian-2"; empty: not there yet
    bool has_algorithms = false;
    std::string_view kex, host_key;
    std::string_view encryption_out, encryption_in;  // client to server, server to client
    std::string_view mac_out, mac_in;
    std::string_view compression_out, compression_in;
};

// match: banner and algorithms. incomplete: what is there so far is in `hello`.
[[nodiscard]] Verdict parse_ssh(ByteSpan stream, SshHello& hello) noexcept;

}  // namespace egresswatch::inspect
