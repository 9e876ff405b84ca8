// capture/ebpf/libbpf_words.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/libbpf_words.h"

#include <bpf/libbpf.h>

#include <cstdarg>
#include <cstdio>

namespace egresswatch::capture {
namespace {

constexpr std::size_t WORDS_BYTES_MAX = 64 * 1024;
constexpr std::size_t WORDS_BYTES_SHOWN = 1500;

thread_local std::string* collector = nullptr;

int collect(libbpf_print_level level, const char* format, va_list arguments) {
    if (collector == nullptr || level == LIBBPF_DEBUG) return 0;
    char line[8192];
    std::vsnprintf(line, sizeof line, format, arguments);
    *collector += line;
    if (collector->size() > WORDS_BYTES_MAX) collector->erase(0, collector->size() - WORDS_BYTES_MAX);
    return 0;
}

}  // namespace

LibbpfWords::LibbpfWords() : before_(collector) {
    libbpf_set_print(collect);
    collector = &words_;
}

LibbpfWords::~LibbpfWords() {
    collector = before_;
}

std::string LibbpfWords::tail() const {
    std::string text = words_.size() > WORDS_BYTES_SHOWN
                           ? "... " + words_.substr(words_.size() - WORDS_BYTES_SHOWN)
                           : words_;
    while (!text.empty() && text.back() == '\n') text.pop_back();
    for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at))
        text.replace(at, 1, " | ");
    return text;
}

}  // namespace egresswatch::capture
