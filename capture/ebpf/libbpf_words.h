// capture/ebpf/libbpf_words.h - collects what libbpf prints, so that it reaches the error and not stderr.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "capture/engine.h"

namespace egresswatch::capture {

// While it lives, what libbpf says on this thread is collected. One at a time on a thread; outside of its
// life libbpf is silent.
class LibbpfWords {
public:
    LibbpfWords();
    ~LibbpfWords();
    LibbpfWords(const LibbpfWords&) = delete;
    LibbpfWords& operator=(const LibbpfWords&) = delete;
    // The end of it, on one line: where the verifier says why.
    [[nodiscard]] std::string tail() const;

private:
    std::string words_;
    std::string* before_;
};

// An options struct of libbpf, zero but for its size. LIBBPF_OPTS of libbpf 1.1 leaves members out of its
// initialiser, at which clang warns.
template <typename Options>
[[nodiscard]] Options libbpf_options() {
    Options options{};
    options.sz = sizeof options;
    return options;
}

}  // namespace egresswatch::capture
