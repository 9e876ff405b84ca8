// rules/names.h - what the parts of a domain name say. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace egresswatch::rules {

// What somebody registered: example.co.uk of a.b.example.co.uk, by the public suffix list that libpsl was
// built with. The last two labels where the list has nothing to say; the whole name where it has fewer. Small
// letters in, without a dot at the end; a part of `name` out.
[[nodiscard]] std::string_view registered_domain(std::string_view name);

// Shannon entropy, in bits a character, of what stands in front of the registered domain; dots do not count.
// Text that people chose has 2 to 3.5, encoded data near 4 (hex) or 5 (base32).
[[nodiscard]] double label_entropy(std::string_view name);

}  // namespace egresswatch::rules
