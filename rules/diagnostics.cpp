// rules/diagnostics.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/diagnostics.h"
