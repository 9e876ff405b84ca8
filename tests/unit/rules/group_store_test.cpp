// tests/unit/rules/group_store_test.cpp - the store of groups against one of standard containers.
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_store.h"

#include <list>
#include <map>
#include <random>

#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

struct Held {
    std::vector<std::uint32_t> values;  // so that a payload which is not given back is a leak
    [[nodiscard]] std::size_t cells() const noexcept { return values.size(); }
};
using Store = GroupStore<Held>;

struct Kept {
    std::uint32_t group;
    std::int64_t activity;
    std::vector<std::uint32_t> values;
    bool operator==(const Kept&) const = default;
};

// The same, as it would be written without a thought of speed.
class Model {
public:
    Model(std::size_t groups_max, WindowBudget& budget) : groups_max_(groups_max), budget_(&budget) {}

    void add(std::uint32_t group, std::int64_t activity, std::uint32_t value) {
        auto slot = find(group);
        if (slot == order_.end()) {
            if ((order_.size() >= groups_max_ || budget_->groups >= budget_->groups_max) && !order_.empty())
                evict();
            slot = order_.insert(order_.end(), {group, std::numeric_limits<std::int64_t>::min(), {}});
            ++budget_->groups;
        }
        if (activity > slot->activity) {
            slot->activity = activity;
            order_.splice(order_.end(), order_, slot);
        }
        slot->values.push_back(value);
        ++budget_->cells;
        while ((order_.size() > groups_max_ || budget_->groups > budget_->groups_max ||
                budget_->cells > budget_->cells_max) &&
               order_.begin() != slot)
            evict();
    }
    void erase(std::uint32_t group) {
        if (const auto slot = find(group); slot != order_.end()) drop(slot);
    }
    void drop_before(std::int64_t activity, std::size_t steps) {
        while (!order_.empty() && steps-- > 0 && order_.front().activity < activity) drop(order_.begin());
    }
    [[nodiscard]] const std::list<Kept>& order() const { return order_; }
    [[nodiscard]] std::uint64_t evicted() const { return evicted_; }

private:
    std::list<Kept>::iterator find(std::uint32_t group) {
        return std::ranges::find(order_, group, &Kept::group);
    }
    void drop(std::list<Kept>::iterator slot) {
        --budget_->groups;
        budget_->cells -= slot->values.size();
        order_.erase(slot);
    }
    void evict() {
        drop(order_.begin());
        ++evicted_;
    }

    std::size_t groups_max_;
    WindowBudget* budget_;
    std::list<Kept> order_;  // oldest activity first
    std::uint64_t evicted_ = 0;
};

GroupKey key_of(std::uint32_t group) {
    GroupKey key;
    key.base = Address::from_ipv4(group);
    return key;
}

std::list<Kept> order_of(const Store& store) {
    std::list<Kept> out;
    store.each([&](const Store::Slot& slot) {
        out.push_back({slot.key.base.ipv4(), slot.activity, slot.payload.values});
    });
    return out;
}

}  // namespace

TEST_CASE("a store holds and evicts what one of standard containers would",
          "[rules][group_store][property]") {
    // Few homes: long runs of the table, that wrap around its end, and tags that say nothing.
    for (const std::uint64_t homes : {3ull, 61ull, 1ull << 62}) {
        for (const std::size_t groups_max :
             {std::size_t{0}, std::size_t{1}, std::size_t{50}, std::size_t{1000}}) {
            std::mt19937_64 random(homes + groups_max);
            WindowBudget budget{0, 0, 120, 400}, model_budget = budget;
            Store store(groups_max, budget);
            Store other(groups_max, budget);  // of the same budget
            Model model(groups_max, model_budget), other_model(groups_max, model_budget);
            const auto hash_of = [&](std::uint32_t group) {
                return GroupHash{1}(key_of(group)) % homes + (homes < 100 ? 60 : 0);
            };
            for (int step = 0; step < 20'000; ++step) {
                const auto group = static_cast<std::uint32_t>(random() % 300);
                const bool first = random() % 4 != 0;
                Store& used = first ? store : other;
                Model& expected = first ? model : other_model;
                const auto activity =
                    static_cast<std::int64_t>(step / 50) - static_cast<std::int64_t>(random() % 3);
                const auto kind = random() % 20;
                if (kind == 0) {
                    if (auto* found = used.find(key_of(group), hash_of(group)); found != nullptr)
                        used.erase(*found);
                    expected.erase(group);
                } else if (kind == 1 && step % 500 > 450) {
                    used.drop_before(activity - 5, 7);
                    expected.drop_before(activity - 5, 7);
                } else {
                    used.prefetch(hash_of(group));
                    used.prefetch_group(hash_of(group));
                    auto& slot = used.find_or_make(key_of(group), hash_of(group));
                    used.touch(slot, activity);
                    slot.payload.values.push_back(group);
                    ++budget.cells;
                    used.make_room(slot);
                    expected.add(group, activity, group);
                }
                REQUIRE(budget.groups == model_budget.groups);
                REQUIRE(budget.cells == model_budget.cells);
                REQUIRE(used.evicted() == expected.evicted());
                REQUIRE(used.size() == expected.order().size());
                if (step % 97 == 0) REQUIRE(order_of(used) == expected.order());
            }
            REQUIRE(order_of(store) == model.order());
            for (const Kept& kept : model.order()) {
                const auto* found = store.find(key_of(kept.group), hash_of(kept.group));
                REQUIRE(found != nullptr);
                REQUIRE(found->payload.values == kept.values);
            }
            CHECK(model.evicted() > 0);
        }
    }
}

TEST_CASE("a store that grows to its limit and is used up twice over loses no group before its time",
          "[rules][group_store]") {
    constexpr std::uint32_t groups_max = 65'536;
    WindowBudget budget{0, 0, 1'000'000, 1'000'000};
    {
        Store store(groups_max, budget);
        const GroupHash hash{7};
        for (std::uint32_t group = 0; group < 3 * groups_max; ++group) {
            auto& slot = store.find_or_make(key_of(group), hash(key_of(group)));
            store.touch(slot, group);
            slot.payload.values.push_back(group);
            ++budget.cells;
            store.make_room(slot);
        }
        CHECK(store.size() == groups_max);
        CHECK(store.evicted() == 2 * groups_max);
        CHECK(budget.cells == groups_max);
        std::uint32_t next = 2 * groups_max;
        store.each(
            [&](const Store::Slot& slot) { next += slot.payload.values == std::vector{next} ? 1 : 0; });
        CHECK(next == 3 * groups_max);
        for (const std::uint32_t group : {0u, 2 * groups_max - 1})
            CHECK(store.find(key_of(group), hash(key_of(group))) == nullptr);
        for (const std::uint32_t group : {2 * groups_max, 3 * groups_max - 1})
            CHECK(store.find(key_of(group), hash(key_of(group))) != nullptr);
    }
    CHECK(budget.groups == 0);
    CHECK(budget.cells == 0);
}
