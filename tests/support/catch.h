// tests/support/catch.h - the one include that differs between Catch2 v2 and v3.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <catch2/catch.hpp>
