// classifier/datapath/types.h - what lets one header compile as BPF C and as C++.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Every file of this folder is written in the subset that `clang -target bpf` (C11) and g++ (C++23) both
// take: no VLAs, no designated initialisers, explicit casts from void*, loops bounded by a named constant. In
// C++ everything lives in namespace egresswatch::datapath.
#pragma once

#include <linux/types.h>

#define DATAPATH_INLINE static inline __attribute__((always_inline))
// For code off the common path. BPF: a global function, which the verifier proves once, by itself, instead of
// once for each state of the caller (its arguments: the context, scalars, pointers to structs, which may be
// null to it).
#ifdef __bpf__
#define DATAPATH_CALL __attribute__((noinline))
#define DATAPATH_KEEP(argument) \
    asm volatile("" : "+r"(argument))  // else clang passes garbage for an unused argument
#else
#define DATAPATH_CALL static inline
#define DATAPATH_KEEP(argument) ((void)(argument))
#endif
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#ifdef __cplusplus
#define LAYOUT_ASSERT(condition, message) static_assert(condition, message)
#define DATAPATH_BEGIN namespace egresswatch::datapath {
#define DATAPATH_END }
#else
#define LAYOUT_ASSERT(condition, message) _Static_assert(condition, message)
#define DATAPATH_BEGIN
#define DATAPATH_END
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "egresswatch supports little-endian hosts only (x86-64, arm64)"
#endif

DATAPATH_BEGIN

// Loads from packet memory, which is not aligned. BPF: the verifier admits unaligned packet loads on the
// machines we support, and clang would split a memcpy into bytes. User space: memcpy, which a compiler turns
// into one load.
#ifdef __bpf__
typedef __u16 __attribute__((may_alias)) any_u16;
typedef __u32 __attribute__((may_alias)) any_u32;
typedef __u64 __attribute__((may_alias)) any_u64;
DATAPATH_INLINE __u16 load16(const void* at) {
    return *(const any_u16*)at;
}
DATAPATH_INLINE __u32 load32(const void* at) {
    return *(const any_u32*)at;
}
DATAPATH_INLINE __u64 load64(const void* at) {
    return *(const any_u64*)at;
}
DATAPATH_INLINE void store64(void* at, __u64 value) {
    *(any_u64*)at = value;
}
#else
DATAPATH_INLINE __u16 load16(const void* at) {
    __u16 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}
DATAPATH_INLINE __u32 load32(const void* at) {
    __u32 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}
DATAPATH_INLINE __u64 load64(const void* at) {
    __u64 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}
DATAPATH_INLINE void store64(void* at, __u64 value) {
    __builtin_memcpy(at, &value, sizeof value);
}
#endif

DATAPATH_INLINE __u16 host16(__u16 big_endian) {
    return __builtin_bswap16(big_endian);
}
DATAPATH_INLINE __u32 host32(__u32 big_endian) {
    return __builtin_bswap32(big_endian);
}

DATAPATH_END
