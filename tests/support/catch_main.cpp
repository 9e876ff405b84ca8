// tests/support/catch_main.cpp - Catch2's main, compiled once for all test programs.
// SPDX-License-Identifier: Apache-2.0
#define CATCH_CONFIG_MAIN
#include "tests/support/catch.h"
