// rules/compiler.h - turns checked mappings into a Policy. Internal to rules/: policy.h is the border.
// SPDX-License-Identifier: Apache-2.0
//
// In:      the root node of every file.   Out: Policy.
// Fails:   into Problems.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "rules/fields.h"
#include "rules/policy.h"

namespace egresswatch::rules {

class PolicyBuilder {
public:
    explicit PolicyBuilder(Problems& problems);

    // Files in order; `root` null where the file could not be read: references into it are not complained of.
    void add_file(const SourceText& source, NodePtr root);
    // After all files. Null where there were errors.
    [[nodiscard]] std::shared_ptr<const Policy> build(std::string content_hash);

private:
    struct File {
        const SourceText* source;
        NodePtr root;
        std::unique_ptr<Fields> fields;
    };
    struct Named {  // a region or list that can be referred to
        NamedSet set;
        bool has_destinations = false;  // prefixes, countries, ASNs, domains
        bool has_executables = false;
        bool used = false;
        Where where;
        const Node* node = nullptr;
    };
    // What is in one of the mappings to, from and when of an allow entry, when and match of a rule.
    enum class Selection { to, from, also, when, match };

    void read_header();
    const File* header_file(std::string_view key);  // the one that writes it; reports none and several
    void read_language(const File& file);
    void read_requires(const Fields& fields);
    void read_sites(const File& file);
    void read_regions(const File& file);
    Region read_region(const Fields& fields, const std::string& name);
    void read_home();
    void read_overrides(const File& file);
    void read_override(const Fields& fields);
    // The entry as the overrides of its id make it; null where they disable it.
    const Node* overridden(std::string_view kind, const std::string& id, const Node& node);
    void append_to(Node& node, const Node& more, const Mapping& mapping, const Where& where,
                   bool within_not = false);
    void check_overrides();
    void read_lists(const File& file);
    void read_list(const Fields& fields, const std::string& name, const Node& key);
    void read_allows(const File& file);
    void read_allow(const Fields& fields);
    void read_rules(const File& file);
    void read_rule(const Fields& fields);
    void read_kind(const Fields& fields, Rule& rule);
    void read_window(const Fields& fields, Rule& rule);
    void read_upload_ratio(const Fields& fields, Rule& rule);
    void read_periodic(const Fields& fields, Rule& rule);
    void read_long_lived(const Fields& fields, Rule& rule);
    void read_first_contact(const Fields& fields, Rule& rule);
    void read_sequence(const Fields& fields, Rule& rule);
    void read_distinct(const Fields& fields, Rule& rule);
    std::chrono::seconds read_duration(const Fields& fields, std::string_view key,
                                       std::chrono::seconds otherwise);
    std::uint64_t read_amount(const Fields& fields, std::string_view key, bool bytes);
    void check_group(const Fields& fields, std::string_view key, const Rule& rule);
    void join_sequences();
    std::optional<std::size_t> find_rule(const Where& where, const Node& node);
    void read_suppress(const Fields& fields, Rule& rule);
    void read_exceptions(const Fields& fields, Rule& rule);
    void read_by(const Fields& fields, std::string_view key, std::vector<Field>& by);
    void read_condition(const Fields& fields, Selection selection, const std::string& name,
                        Condition& condition, std::size_t depth = 0);
    Predicate read_predicate(const Fields& fields, const Key& key, Field field, Selection selection);
    void read_value(const Fields& fields, const Key& key, const Node& node, Predicate& out);
    void read_prefixes(const Fields& fields, const Key& key, Predicate& out);
    void read_list_names(const Fields& fields, Selection selection, Predicate& out);
    void read_region_names(const Fields& fields, Selection selection, Predicate& out);
    void check_site(const Fields& fields, const Node& node);
    Expiry read_expiry(const Fields& fields);
    void ask_for_asn(const Fields& fields, const Node& node);
    void warn_unused();
    void warn_covered_allows();
    void warn_equal_rules();
    void warn_of_lint();

    // A list of the region table while there is room for it, a set of the prefix index otherwise.
    PrefixSet add_list(std::string name, const std::vector<Prefix>& prefixes, bool named);
    std::uint32_t add_place_set(std::string name, const std::vector<Prefix>& prefixes);
    std::vector<Prefix> prefixes_of(const Fields& fields, std::string_view key);
    // Reports a second use of the id of an allow entry or rule; true for the first.
    bool claim(std::string kind, const std::string& id, const Where& where, const Node& node);
    Where entry_where(const File& file, const Node& node, const char* kind, std::size_t index) const;

    Problems& problems_;
    std::shared_ptr<Policy> policy_;
    std::vector<File> files_;
    bool some_unreadable_ = false;
    std::size_t patterns_ = 0;  // regular expressions so far
    std::map<std::string, Named, std::less<>> regions_;
    std::map<std::string, Named, std::less<>> lists_;
    std::map<std::string, std::string> claimed_;  // "rule bulk" -> "file:line"
    std::vector<std::pair<Where, const Node*>> allow_nodes_, rule_nodes_;
    struct Sequence {  // its rules are looked for when all are read
        std::size_t rule;
        Where where;
        const Node* first;
        const Node* then;
    };
    std::vector<Sequence> sequences_;
    struct Override {
        Where where;
        const Node* target = nullptr;
        const Node* append = nullptr;
        const Node* replace = nullptr;
        std::optional<bool> disable;
        bool used = false;
    };
    std::map<std::string, std::vector<Override>> overrides_;  // "rule bulk", in file order
    std::map<std::string, std::size_t> counts_;               // claimed, of each kind
    std::set<std::string> disabled_;                          // likewise
    std::vector<NodePtr> merged_;  // what overrides made; diagnostics point into it
};

// Text that is equal for two conditions that are written alike.
[[nodiscard]] std::string definition_of(const Condition& condition);
// Text that is equal for two rules that count the same things in the same windows.
[[nodiscard]] std::string definition_of(const Rule& rule);
[[nodiscard]] std::string id_in(const Node& node);
[[nodiscard]] DomainName domain_of(std::string_view text);  // "*.example.org"
// Of a whole condition: tells each predicate whether it says of `hidden` what it takes.
void settle_hidden(Condition& condition);

}  // namespace egresswatch::rules
