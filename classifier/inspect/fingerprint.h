// classifier/inspect/fingerprint.h - fingerprints of client and server software.
//
// JA4 (FoxIO, BSD-3-Clause; the TLS client fingerprint only): "t13d1516h2_8daaf6152771_e5627efa2ab1".
// HASSH (Salesforce, BSD-3-Clause): MD5 over the algorithms that an SSH side offers.
// Threads: any. Hashes by OpenSSL, which allocates: for user space, off the packet path.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

#include "classifier/inspect/tls.h"

namespace egresswatch::inspect {

enum class HelloTransport : char { tcp = 't', quic = 'q', dtls = 'd' };

using Ja4 = std::array<char, 36>;    // no terminator
using Hassh = std::array<char, 32>;  // lower-case hex

[[nodiscard]] Ja4 ja4_of(const ClientHello& hello, HelloTransport transport) noexcept;
// The lists as they stand in SSH_MSG_KEXINIT: key exchange, and of that side's direction encryption, MAC and
// compression.
[[nodiscard]] Hassh hassh_of(std::string_view kex, std::string_view encryption, std::string_view mac,
                             std::string_view compression) noexcept;

}  // namespace egresswatch::inspect
