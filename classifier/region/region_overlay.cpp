// classifier/region/region_overlay.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/region_overlay.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "classifier/region/special.h"

namespace egresswatch {

namespace {

enum class Says : std::uint8_t { special, home, host, list };

template <typename Number>
struct Statement {
    Number first = 0;
    Number last = 0;
    Says says = Says::special;
    std::uint16_t index = 0;  // of the special prefix or of the list
};

template <typename Number>
using Statements = std::vector<Statement<Number>>;

// CIDR blocks nest or lie apart, so that one stack holds all that say something about the current address.
class Sweep {
public:
    Sweep(RegionOverlay& overlay, const RegionSpec& spec) : overlay_(overlay), spec_(spec) {
        state_ids_[overlay.states[0]] = 0;
        set_ids_[overlay.name_sets[0]] = 0;
    }

    template <typename Number>
    bool run(Statements<Number> statements, std::vector<OverlayPiece<Number>>& pieces) {
        std::ranges::stable_sort(statements, [](const auto& a, const auto& b) {
            return a.first != b.first ? a.first < b.first : a.last > b.last;
        });
        struct Open {
            Number last;
            std::uint32_t state;
        };
        std::vector<Open> open;
        const auto emit = [&](Number first, std::uint32_t state) {
            if (!pieces.empty() && pieces.back().first == first) pieces.pop_back();
            if (pieces.empty() || pieces.back().state != state) pieces.push_back({first, state});
        };
        const auto close = [&] {
            const Number last = open.back().last;
            open.pop_back();
            if (last != number_max<Number>) emit(last + 1, open.empty() ? 0 : open.back().state);
        };
        emit(0, 0);
        for (const auto& statement : statements) {
            while (!open.empty() && open.back().last < statement.first) close();
            const auto state =
                state_with(open.empty() ? 0 : open.back().state, statement.says, statement.index);
            if (!state) return false;
            open.push_back({statement.last, *state});
            emit(statement.first, *state);
        }
        while (!open.empty()) close();
        return true;
    }

private:
    std::optional<std::uint32_t> state_with(std::uint32_t outer, Says says, std::uint16_t index) {
        OverlayState state = overlay_.states[outer];
        switch (says) {
            case Says::special:
                state.special = static_cast<std::int16_t>(index);
                break;
            case Says::home:
                state.home = true;
                break;
            case Says::host:
                state.host = true;
                break;
            case Says::list: {
                const auto set = set_with(state.name_set, spec_.list_names[index]);
                if (!set) return std::nullopt;
                state.name_set = *set;
                break;
            }
        }
        const auto [found, fresh] =
            state_ids_.try_emplace(state, static_cast<std::uint32_t>(overlay_.states.size()));
        if (fresh) overlay_.states.push_back(state);
        return found->second;
    }

    std::optional<std::uint16_t> set_with(std::uint16_t outer, const std::string& name) {
        NameSet names = overlay_.name_sets[outer];
        const auto place = std::ranges::lower_bound(names, name);
        if (place != names.end() && *place == name) return outer;
        names.insert(place, name);
        const auto [found, fresh] =
            set_ids_.try_emplace(names, static_cast<std::uint16_t>(overlay_.name_sets.size()));
        if (fresh) {
            if (overlay_.name_sets.size() == 0xffff) return std::nullopt;
            overlay_.name_sets.push_back(std::move(names));
        }
        return found->second;
    }

    RegionOverlay& overlay_;
    const RegionSpec& spec_;
    std::map<OverlayState, std::uint32_t> state_ids_;
    std::map<NameSet, std::uint16_t> set_ids_;
};

struct Collected {
    Statements<std::uint32_t> four;
    Statements<Uint128> six;

    void add(const Prefix& prefix, Says says, std::uint16_t index) {
        if (prefix.is_ipv4()) {
            const auto first = prefix.base.ipv4();
            four.push_back({first, prefix_last(first, prefix.length), says, index});
        } else {
            const auto first = Family<Uint128>::number_of(prefix.base);
            six.push_back({first, prefix_last(first, prefix.length), says, index});
        }
    }
};

std::string complaint(const RegionSpec& spec) {
    if (spec.list_names.size() > 0xffff) return "more than 65535 lists in the policy";
    std::set<std::string_view> names;
    for (const auto& name : spec.list_names)
        if (!names.insert(name).second) return "list name \"" + name + "\" is given twice";
    for (const auto& member : spec.list_prefixes)
        if (member.list >= spec.list_names.size())
            return "prefix " + member.prefix.to_string() + " names list " + std::to_string(member.list) +
                   ", but there are " + std::to_string(spec.list_names.size());
    for (const auto* prefixes : {&spec.home_prefixes, &spec.host_addresses})
        for (const auto& prefix : *prefixes)
            if (auto wrong = why_never_matched(prefix); !wrong.empty()) return wrong;
    for (const auto& member : spec.list_prefixes)
        if (auto wrong = why_never_matched(member.prefix); !wrong.empty())
            return "list \"" + spec.list_names[member.list] + "\": " + wrong;
    return {};
}

}  // namespace

std::expected<RegionOverlay, RegionError> make_overlay(const RegionSpec& spec) {
    if (auto wrong = complaint(spec); !wrong.empty())
        return std::unexpected(RegionError{RegionError::Code::input, wrong});
    Collected statements;
    const auto special = special_prefixes();
    for (std::size_t i = 0; i < special.size(); i++)
        statements.add(special[i].prefix, Says::special, static_cast<std::uint16_t>(i));
    for (const auto& prefix : spec.home_prefixes) statements.add(prefix, Says::home, 0);
    for (const auto& prefix : spec.host_addresses) statements.add(prefix, Says::host, 0);
    for (const auto& member : spec.list_prefixes) statements.add(member.prefix, Says::list, member.list);
    RegionOverlay overlay;
    Sweep sweep(overlay, spec);
    if (!sweep.run(std::move(statements.four), overlay.pieces4) ||
        !sweep.run(std::move(statements.six), overlay.pieces6))
        return std::unexpected(RegionError{
            RegionError::Code::limit, "more than 65535 combinations of policy lists that share addresses"});
    return overlay;
}

}  // namespace egresswatch
