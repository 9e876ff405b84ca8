// rules/compiler.cpp - header, sites, regions, lists and allow entries. Rules: compile_rules.cpp.
// SPDX-License-Identifier: Apache-2.0
#include "rules/compiler.h"

#include <algorithm>
#include <array>

#include "rules/limits.h"
#include "rules/policy_lint.h"
#include "rules/region_groups.h"
#include "rules/relations.h"
#include "rules/value_lint.h"

namespace egresswatch::rules {

namespace {

// The language that this version reads: raised with every key or meaning that is added.
constexpr std::pair<std::uint64_t, std::uint64_t> language_version{1, 1};

constexpr std::array<std::string_view, 4> kind_words{"local", "home", "unknown", "outside"};

std::string place_of(const Where& where, const Node& node) {
    return where.source->name() + ":" + std::to_string(node.line);
}

}  // namespace

// The text of an entry's id, before the entry is checked: for contexts.
std::string id_in(const Node& node) {
    for (const Node::Entry& entry : node.entries)
        if (entry.key->text == "id" && entry.value->kind == Node::Kind::scalar)
            return entry.value->text.substr(0, limits::id_length_max);
    return {};
}

PolicyBuilder::PolicyBuilder(Problems& problems) : problems_(problems), policy_(std::make_shared<Policy>()) {}

void PolicyBuilder::add_file(const SourceText& source, NodePtr root) {
    policy_->files.push_back(source.name());
    if (!root) {
        some_unreadable_ = true;
        return;
    }
    some_unreadable_ |= root->kind != Node::Kind::mapping;
    auto fields = std::make_unique<Fields>(*root, schema::policy, Where{&source, {}}, problems_);
    files_.push_back({&source, std::move(root), std::move(fields)});
}

std::shared_ptr<const Policy> PolicyBuilder::build(std::string content_hash) {
    for (const File& file : files_) read_language(file);
    read_header();
    for (const File& file : files_) read_sites(file);
    for (const File& file : files_) read_regions(file);
    read_home();
    for (const File& file : files_) read_overrides(file);
    for (const File& file : files_) read_lists(file);
    for (const File& file : files_) read_allows(file);
    for (const File& file : files_) read_rules(file);
    join_sequences();
    check_overrides();
    for (auto& [name, region] : regions_) region.used = true;  // regions document; only lists can go stale
    if (problems_.errors() == 0 && !some_unreadable_) {
        warn_unused();
        warn_covered_allows();
        warn_equal_rules();
        warn_of_lint();
    }
    if (problems_.errors() != 0 || some_unreadable_) return nullptr;
    policy_->content_hash_ = std::move(content_hash);
    policy_->prefix_index_.build();
    return std::move(policy_);
}

void PolicyBuilder::read_language(const File& file) {
    if (file.root->kind != Node::Kind::mapping || file.fields->has("policy") ||
        file.fields->misspelt("policy"))
        return;
    problems_.error(file.fields->where(), *file.root, "missing-key", "this file does not say its language",
                    "write `policy: egresswatch/v1` as its first line");
}

// Every key of the header is written once in the whole set.
const PolicyBuilder::File* PolicyBuilder::header_file(std::string_view key) {
    const File* first = nullptr;
    bool misspelt = false;
    for (const File& file : files_) {
        misspelt |= file.fields->misspelt(key);
        if (!file.fields->has(key)) continue;
        if (first == nullptr) {
            first = &file;
            continue;
        }
        problems_.error(file.fields->where(), file.fields->key_node(key), "duplicate-key",
                        "`" + std::string(key) + "` is written in two files",
                        "the first one is in " +
                            place_of(first->fields->where(), first->fields->key_node(key)) +
                            ": keep one of them");
    }
    const Key* row = schema::policy.find(key);
    if (first == nullptr && !misspelt && row->need == Need::required && !some_unreadable_ && !files_.empty())
        problems_.error(files_.front().source->name(), "missing-key",
                        (files_.size() == 1 ? "the policy has no `" : "no file of the policy has `") +
                            std::string(key) + "`",
                        "add `" + std::string(key) + ":`. " + std::string(row->doc));
    return first;
}

void PolicyBuilder::read_header() {
    if (const File* file = header_file("name")) policy_->name = file->fields->text("name");
    if (const File* file = header_file("owner")) policy_->owner = file->fields->text("owner");
    if (const File* file = header_file("revision"))
        policy_->revision =
            file->fields
                ->value("revision", [](std::string_view t) { return parse_whole(t, 1, 1'000'000'000); })
                .value_or(0);
    if (const File* file = header_file("requires")) read_requires(*file->fields);
    if (const File* file = header_file("unknown_country"))
        policy_->region_spec_.unknown_is_home = file->fields->text("unknown_country") == "home";
}

void PolicyBuilder::read_requires(const Fields& fields) {
    std::string text = fields.text("requires");
    if (text.empty()) return;
    text.erase(0, text.find_first_of("0123456789"));
    const std::size_t point = text.find('.');
    const auto major = parse_whole(std::string_view(text).substr(0, point), 0, 9999);
    const auto minor = parse_whole(std::string_view(text).substr(point + 1), 0, 9999);
    if (!major || !minor || std::pair{*major, *minor} <= language_version) return;
    problems_.error(fields.where(), *fields.scalars("requires").front(), "requires-newer",
                    "the policy requires language version " + text + "; this egresswatch reads 1.1",
                    "install a newer egresswatch on this host, or ship it a policy for 1.1");
}

void PolicyBuilder::read_sites(const File& file) {
    for (const Node::Entry& entry : file.fields->named("sites")) {
        const std::string& name = entry.key->text;
        Where where{file.source,
                    "site " + in_quotes(name) + " (line " + std::to_string(entry.key->line) + ")"};
        if (!claim("site", name, where, *entry.key)) continue;
        const Fields fields(*entry.value, schema::site, where, problems_);
        const auto degrees = [](std::string_view text) { return parse_decimal(text, -180, 180); };
        policy_->sites.push_back({name, fields.text("title"), fields.text("country"), fields.text("timezone"),
                                  fields.value("latitude", degrees), fields.value("longitude", degrees)});
    }
}

void PolicyBuilder::read_regions(const File& file) {
    for (const Node::Entry& entry : file.fields->named("regions")) {
        const std::string& name = entry.key->text;
        Where where{file.source,
                    "region " + in_quotes(name) + " (line " + std::to_string(entry.key->line) + ")"};
        if (std::ranges::find(kind_words, name) != kind_words.end()) {
            problems_.error(
                where, *entry.key, "reserved-name", in_quotes(name) + " is a word of the language",
                "name the region differently: rules use " + one_of(kind_words) + " for the classes");
            continue;
        }
        if (!claim("region", name, where, *entry.key)) continue;
        const Fields fields(*entry.value, schema::region, where, problems_);
        Region region = read_region(fields, name);
        Named named;
        named.set = {name, region.countries, {}, region.asns, {}, {}};
        named.has_destinations = true;
        named.where = where;
        named.node = entry.key.get();
        if (!region.prefixes.empty()) named.set.prefixes = add_list("region:" + name, region.prefixes, false);
        regions_.emplace(name, std::move(named));
        policy_->regions.push_back(std::move(region));
    }
}

Region PolicyBuilder::read_region(const Fields& fields, const std::string& name) {
    Region region;
    region.name = name;
    region.prefixes = prefixes_of(fields, "cidr");
    region.asns = fields.list("asn", parse_asn);
    if (fields.has("asn")) ask_for_asn(fields, fields.key_node("asn"));
    for (Country& country : fields.list("countries", parse_country))
        region.countries.insert(std::move(country));
    const auto as_of = fields.value("as_of", parse_date);
    if (fields.has("groups") && !fields.has("as_of"))
        problems_.error(fields.where(), fields.key_node("groups"), "missing-key",
                        "groups of countries change: say as of which day",
                        "add `as_of:` with a day, as in as_of: 2026-02-01");
    if (as_of && *as_of > region_groups_reviewed())
        problems_.warning(
            fields.where(), *fields.scalars("as_of").front(), "as-of-later",
            "this version knows the groups as of " +
                [] {
                    const auto day = region_groups_reviewed();
                    const auto two = [](unsigned n) { return (n < 10 ? "0" : "") + std::to_string(n); };
                    return std::to_string(static_cast<int>(day.year())) + "-" +
                           two(static_cast<unsigned>(day.month())) + "-" +
                           two(static_cast<unsigned>(day.day()));
                }(),
            "check by hand what has changed since, or write that day");
    for (const Node* group : fields.scalars("groups"))
        if (const RegionGroup* known = find_region_group(group->text); known != nullptr && as_of)
            region.countries.merge(members(*known, *as_of));
    if (!fields.has("groups") && !fields.has("countries") && !fields.has("cidr") && !fields.has("asn"))
        problems_.error(fields.where(), fields.node(), "empty-region", "the region holds nothing",
                        "give it groups, countries or cidr");
    return region;
}

void PolicyBuilder::read_home() {
    const File* file = header_file("home");
    if (file == nullptr || file->fields->scalars("home").empty()) return;
    const Node& node = *file->fields->scalars("home").front();
    const auto found = std::ranges::find(policy_->regions, node.text, &Region::name);
    if (found == policy_->regions.end()) {
        std::vector<std::string_view> names;
        for (const auto& [name, region] : regions_) names.push_back(name);
        const std::string_view near = nearest(node.text, names);
        if (!some_unreadable_)
            problems_.error(file->fields->where(), node, "unknown-region",
                            "there is no region " + in_quotes(node.text),
                            !near.empty()   ? "write " + std::string(near)
                            : names.empty() ? "define it under `regions`"
                                            : "write " + one_of(names) + ", or define it under `regions`");
        return;
    }
    if (!found->asns.empty())
        problems_.warning(regions_.at(node.text).where, *regions_.at(node.text).node, "asn-of-home",
                          "AS numbers do not make an address home: only countries and prefixes do",
                          "add the prefixes of these networks under `cidr`");
    if (cover_everything(found->prefixes))
        problems_.warning(
            regions_.at(node.text).where, *regions_.at(node.text).node, "home-is-everything",
            "the prefixes of the home region together are every address there is: nothing is outside",
            "name the networks that are meant");
    policy_->home = node.text;
    policy_->region_spec_.home_countries = found->countries;
    policy_->region_spec_.home_prefixes = found->prefixes;
}

void PolicyBuilder::read_lists(const File& file) {
    for (const Node::Entry& entry : file.fields->named("lists")) {
        const std::string& name = entry.key->text;
        Where where{file.source,
                    "list " + in_quotes(name) + " (line " + std::to_string(entry.key->line) + ")"};
        if (!claim("list", name, where, *entry.key)) continue;
        if (const Node* node = overridden("list", name, *entry.value))
            read_list(Fields(*node, schema::list, where, problems_), name, *entry.key);
    }
}

void PolicyBuilder::read_list(const Fields& fields, const std::string& name, const Node& key) {
    Named named;
    named.set.name = name;
    named.where = fields.where();
    named.node = &key;
    const std::vector<Prefix> prefixes = prefixes_of(fields, "cidr");
    if (!prefixes.empty()) named.set.prefixes = add_list(name, prefixes, true);
    for (Country& country : fields.list("country", parse_country))
        named.set.countries.insert(std::move(country));
    named.set.asns = fields.list("asn", parse_asn);
    if (fields.has("asn")) ask_for_asn(fields, fields.key_node("asn"));
    for (const std::string& domain : fields.list("domain", parse_domain))
        named.set.domains.push_back(domain_of(domain));
    named.set.executables = fields.list("executable", parse_path);
    for (const Node* node : fields.scalars("executable"))
        if (const auto odd = odd_value(Field::executable, node->text))
            problems_.warning(fields.where(), *node, odd->code, odd->message, odd->help);
    named.has_executables = fields.has("executable");
    named.has_destinations =
        fields.has("cidr") || fields.has("country") || fields.has("asn") || fields.has("domain");
    if (fields.node().kind == Node::Kind::mapping && !named.has_destinations && !named.has_executables)
        problems_.error(fields.where(), key, "empty-list", "the list " + in_quotes(name) + " is empty",
                        "give it " + std::string("cidr, country, asn, domain or executable, or remove it"));
    policy_->lists.push_back({name, named.set, prefixes});
    lists_.emplace(name, std::move(named));
}

void PolicyBuilder::read_allows(const File& file) {
    const auto& nodes = file.fields->nodes("allow");
    for (std::size_t i = 0; i < nodes.size() && !problems_.full(); ++i)
        if (const Node* node = overridden("allow entry", id_in(*nodes[i]), *nodes[i]))
            read_allow(
                Fields(*node, schema::allow, entry_where(file, *nodes[i], "allow entry", i), problems_));
}

void PolicyBuilder::read_allow(const Fields& fields) {
    if (fields.node().kind != Node::Kind::mapping) return;
    AllowEntry entry;
    entry.id = fields.text("id");
    entry.place = {fields.where().source->name(), fields.node().line, fields.node().column,
                   fields.node().length};
    if (!entry.id.empty()) claim("allow entry", entry.id, fields.where(), *fields.scalars("id").front());
    entry.owner = fields.text("owner");
    entry.reason = fields.text("reason");
    entry.ticket = fields.text("ticket");
    entry.legal_basis = fields.text("legal_basis");
    entry.expires = read_expiry(fields);
    if (!fields.nodes("to").empty()) {
        const Fields to(*fields.nodes("to").front(), schema::to, fields.where(), problems_);
        read_condition(to, Selection::to, "allow:" + entry.id, entry.match);
        if (to.node().entries.empty())
            problems_.error(fields.where(), fields.key_node("to"), "empty-to", "`to` names no destination",
                            "give it cidr, list, country or region");
        else if (to.has("port") && to.node().entries.size() == 1)
            problems_.warning(fields.where(), to.key_node("port"), "allows-everywhere",
                              "this allows every destination on that port, in every country",
                              "name the destination too, by cidr, list, country or region");
    }
    if (!fields.nodes("from").empty())
        read_condition(Fields(*fields.nodes("from").front(), schema::from, fields.where(), problems_),
                       Selection::from, "allow:" + entry.id, entry.match);
    if (!fields.nodes("when").empty())
        read_condition(Fields(*fields.nodes("when").front(), schema::match, fields.where(), problems_),
                       Selection::also, "allow:" + entry.id, entry.match);
    settle_hidden(entry.match);
    if (const std::string direction = fields.text("direction"); direction == "out" || direction == "in") {
        Predicate connects;
        connects.field = Field::initiator;
        connects.bits = 1u << (direction == "out" ? datapath::INITIATOR_LOCAL : datapath::INITIATOR_REMOTE);
        connects.text = direction == "out" ? "local" : "remote";
        entry.match.predicates.push_back(std::move(connects));
    }
    if (!fields.nodes("ceiling").empty()) {
        const Fields ceiling(*fields.nodes("ceiling").front(), schema::ceiling, fields.where(), problems_);
        Ceiling limit;
        limit.per = ceiling.value("per", parse_duration).value_or(std::chrono::seconds{});
        for (const Node* size : ceiling.scalars("bytes_out")) {
            const auto bytes = parse_size(size->text);
            if (bytes)
                limit.bytes_out = *bytes;
            else
                problems_.error(fields.where(), *size, bytes.error().code, bytes.error().message,
                                bytes.error().help);
        }
        if (limit.bytes_out == 0 && !ceiling.scalars("bytes_out").empty() && problems_.errors() == 0)
            problems_.error(fields.where(), *ceiling.scalars("bytes_out").front(), "out-of-range",
                            "a ceiling of nothing allows nothing", "write a volume, or remove the entry");
        if (!ceiling.scalars("per").empty() &&
            (limit.per < limits::window_over_min || limit.per > limits::window_over_max))
            problems_.error(fields.where(), *ceiling.scalars("per").front(), "out-of-range",
                            "the period of a ceiling cannot be " + ceiling.text("per"), "write 1s to 90d");
        entry.ceiling = limit;
    }
    policy_->allows.push_back(std::move(entry));
    allow_nodes_.emplace_back(fields.where(), &fields.node());
}

Expiry PolicyBuilder::read_expiry(const Fields& fields) {
    Expiry expiry;
    if (fields.scalars("expires").empty()) return expiry;
    const Node& node = *fields.scalars("expires").front();
    expiry.at = parse_expiry(node.text).value_or(Timestamp{});
    expiry.text = node.text;
    // An override puts nodes of one file into entries of another.
    const SourceText& source = node.source != nullptr ? *node.source : *fields.where().source;
    expiry.place = {source.name(), node.line, node.column, node.length};
    expiry.source_line = source.shown_line(node.line);
    return expiry;
}

PrefixSet PolicyBuilder::add_list(std::string name, const std::vector<Prefix>& prefixes, bool named) {
    RegionSpec& spec = policy_->region_spec_;
    if (spec.list_names.size() >= limits::lists_in_classes_max)
        return {std::nullopt, add_place_set(named ? std::move(name) : std::string(), prefixes)};
    const auto index = static_cast<std::uint16_t>(spec.list_names.size());
    spec.list_names.push_back(std::move(name));
    policy_->list_is_named_.push_back(named ? 1 : 0);
    for (const Prefix& prefix : prefixes) spec.list_prefixes.push_back({prefix, index});
    return {index, std::nullopt};
}

std::uint32_t PolicyBuilder::add_place_set(std::string name, const std::vector<Prefix>& prefixes) {
    const auto set = static_cast<std::uint32_t>(policy_->place_set_names_.size());
    policy_->place_set_names_.push_back(std::move(name));
    for (const Prefix& prefix : prefixes) policy_->prefix_index_.add(set, prefix);
    return set;
}

std::vector<Prefix> PolicyBuilder::prefixes_of(const Fields& fields, std::string_view key) {
    // Such addresses are classified by the IPv4 address inside them (classifier/datapath/region.h).
    static const std::array embedded{*Prefix::parse("2002::/16"), *Prefix::parse("64:ff9b::/96")};
    std::vector<Prefix> out;
    for (const Node* node : fields.scalars(key)) {
        const auto prefix = parse_prefix(node->text);
        if (!prefix) continue;
        const bool hidden = std::ranges::any_of(embedded, [&](const Prefix& e) {
            return !prefix->is_ipv4() && e.length <= prefix->length && e.contains(prefix->base);
        });
        if (hidden)
            problems_.error(fields.where(), *node, "never-matches",
                            "no packet is classified by the prefix " + node->text,
                            "6to4 and NAT64 addresses count as the IPv4 address inside them: write that");
        else
            out.push_back(*prefix);
    }
    return out;
}

bool PolicyBuilder::claim(std::string kind, const std::string& id, const Where& where, const Node& node) {
    const std::size_t count = ++counts_[kind];
    if (count == limits::entries_max + 1)
        problems_.error(where, node, "too-many-entries",
                        "more than " + std::to_string(limits::entries_max) + " entries of this kind: " + kind,
                        "put addresses and names into lists, and one entry for each list");
    if (count > limits::entries_max) return false;
    const auto [first, is_new] = claimed_.emplace(kind + " " + id, place_of(where, node));
    if (!is_new)
        problems_.error(where, node, "duplicate-id",
                        "there are two " + (kind == "allow entry" ? "allow entries" : kind + "s") +
                            " with the name " + in_quotes(id),
                        "the first one is in " + first->second + ": rename one of them");
    return is_new;
}

Where PolicyBuilder::entry_where(const File& file, const Node& node, const char* kind,
                                 std::size_t index) const {
    const std::string id = id_in(node);
    return {file.source, std::string(kind) + " " + (id.empty() ? std::to_string(index + 1) : in_quotes(id)) +
                             " (line " + std::to_string(node.line) + ")"};
}

void PolicyBuilder::warn_of_lint() {
    for (LintFinding& finding : lint_policy(*policy_)) {
        const auto& [where, node] = (finding.of_rule ? rule_nodes_ : allow_nodes_)[finding.index];
        problems_.warning(where, *node, finding.code, std::move(finding.message), std::move(finding.help));
    }
}

void PolicyBuilder::warn_unused() {
    for (const auto& [name, list] : lists_)
        if (!list.used)
            problems_.warning(list.where, *list.node, "unused-list",
                              "nothing refers to the list " + in_quotes(name),
                              "remove it, or use it in an allow entry or a rule");
}

}  // namespace egresswatch::rules
