// tests/unit/agent/evidence_tamper_test.cpp - a real journal, changed in every way that comes to mind.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tests/support/journal_lab.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
namespace fs = std::filesystem;

namespace {

// The journal under test, made once: 12 rounds, 4 changes of key, a clean stop.
struct Original {
    TempDir dir;
    std::string genesis;
    std::string anchors;  // what the SIEM has: every checkpoint but those of the last record

    Original() {
        SignedJournal written(dir.path());
        fill(written, 14);
        written.journal->append(records::stop_record(sample_origin(), "SIGTERM")).value();
        written.stop();
        genesis = written.notary->status().genesis_key;
        for (const auto& segment : journal::list_segments(dir.path() / "journal"))
            for (const auto& line : lines_of(segment.path))
                if (journal::text_member(line, "kind") == "checkpoint") anchors += line + "\n";
    }
};

const Original& original() {
    static const Original made;
    return made;
}

struct Scene {
    fs::path journal;
    fs::path evidence;
    std::vector<fs::path> segments;
    [[nodiscard]] fs::path hashes(std::size_t i) const {
        auto path = segments[i];
        return path.replace_extension(".hashes");
    }
    [[nodiscard]] std::size_t last() const { return segments.size() - 1; }
    [[nodiscard]] evidence::SigningKey stolen_key() const {
        return std::move(evidence::read_key(evidence / "key")->key);
    }
};

void change(std::string& text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
}

std::size_t line_with(const std::vector<std::string>& lines, const std::string& kind) {
    const auto found = std::ranges::find_if(
        lines, [&](const std::string& line) { return journal::text_member(line, "kind") == kind; });
    REQUIRE(found != lines.end());
    return static_cast<std::size_t>(found - lines.begin());
}

void edit_lines(const fs::path& segment, const std::function<void(std::vector<std::string>&)>& edit) {
    auto lines = lines_of(segment);
    edit(lines);
    write_lines(segment, lines);
}

// Cuts the journal behind the first record for which `until` is true.
void cut_behind(const Scene& scene, const std::function<bool(const std::string&)>& until) {
    bool cut = false;
    for (std::size_t i = 0; i < scene.segments.size(); i++) {
        if (cut) {
            fs::remove(scene.segments[i]);
            fs::remove(scene.hashes(i));
            continue;
        }
        auto lines = lines_of(scene.segments[i]);
        const auto found = std::ranges::find_if(lines, until);
        if (found == lines.end()) continue;
        lines.erase(found + 1, lines.end());
        write_lines(scene.segments[i], lines);
        hash_again(scene.segments[i]);
        cut = true;
    }
    REQUIRE(cut);
}

std::uint64_t last_seal(const Scene& scene) {
    const auto chain = evidence::KeyChain::read(read_text(scene.journal / "keys"), std::nullopt);
    return chain.links.back().sealed.size;
}

enum class With { nothing, anchors };

struct Case {
    const char* what;
    With with;
    const char* code;  // of the problem that is found; empty: documented as not to be found
    std::function<void(Scene&)> tamper;
};

const std::vector<Case>& cases() {
    static const std::vector<Case> all{
        {"one figure of a finding", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[1]);
             change(text, "\"bytes_out\":62914560", "\"bytes_out\":12914560");
             write_text(s.segments[1], text);
         }},
        {"one figure, and the hash file with it", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[1]);
             change(text, "\"bytes_out\":62914560", "\"bytes_out\":12914560");
             write_text(s.segments[1], text);
             hash_again(s.segments[1]);
         }},
        {"the country of a flow", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[0]);
             change(text, "\"country\":\"CN\"", "\"country\":\"IE\"");
             write_text(s.segments[0], text);
         }},
        {"the level of a finding", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[2]);
             change(text, "\"level\":\"high\"", "\"level\":\"low\"");
             write_text(s.segments[2], text);
             hash_again(s.segments[2]);
         }},
        {"a space that changes no meaning", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[0]);
             change(text, "\"kind\":\"flow\"", "\"kind\": \"flow\"");
             write_text(s.segments[0], text);
         }},
        {"a nonce", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[0]);
             const auto at = text.find("\"nonce\":\"") + 9;
             text[at] = text[at] == 'a' ? 'b' : 'a';
             write_text(s.segments[0], text);
         }},
        {"the genesis record", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.segments[0]);
             change(text, "\"schema\":1", "\"schema\":2");
             write_text(s.segments[0], text);
             hash_again(s.segments[0]);
         }},
        {"the time of a coverage record", With::nothing, "altered",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 change(lines[line_with(lines, "coverage")], "\"from\":\"2026", "\"from\":\"2025");
             });
             hash_again(s.segments[1]);
         }},
        {"a record deleted", With::nothing, "deleted",
         [](Scene& s) { edit_lines(s.segments[1], [](auto& lines) { lines.erase(lines.begin() + 3); }); }},
        {"a record deleted, and its hash", With::nothing, "deleted",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) { lines.erase(lines.begin() + 3); });
             hash_again(s.segments[1]);
         }},
        {"the last record of a segment deleted, and its hash", With::nothing, "deleted",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) { lines.pop_back(); });
             hash_again(s.segments[1]);
         }},
        {"the first record of a segment deleted", With::nothing, "deleted",
         [](Scene& s) { edit_lines(s.segments[2], [](auto& lines) { lines.erase(lines.begin()); }); }},
        {"every finding of a segment deleted", With::nothing, "deleted",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 std::erase_if(lines, [](const std::string& line) {
                     return journal::text_member(line, "kind") == "finding";
                 });
             });
         }},
        {"every checkpoint deleted", With::nothing, "deleted",
         [](Scene& s) {
             for (const auto& segment : s.segments) {
                 edit_lines(segment, [](auto& lines) {
                     std::erase_if(lines, [](const std::string& line) {
                         return journal::text_member(line, "kind") == "checkpoint";
                     });
                 });
                 hash_again(segment);
             }
         }},
        {"a segment deleted from the middle", With::nothing, "deleted",
         [](Scene& s) { fs::remove(s.segments[2]); }},
        {"a segment and its hashes deleted from the middle", With::nothing, "deleted",
         [](Scene& s) {
             fs::remove(s.segments[2]);
             fs::remove(s.hashes(2));
         }},
        {"the oldest segment deleted, as if by retention", With::nothing, "deleted",
         [](Scene& s) { fs::remove(s.segments[0]); }},
        {"the newest segment deleted, its hashes left", With::nothing, "truncated",
         [](Scene& s) { edit_lines(s.segments.back(), [](auto& lines) { lines.resize(1); }); }},
        {"the journal cut in front of the last change of key", With::nothing, "truncated",
         [](Scene& s) {
             cut_behind(s,
                        [&](const std::string& line) { return journal::line_seq(line) == last_seal(s) - 5; });
         }},
        {"the journal cut at a checkpoint behind the last change of key", With::nothing, "",
         [](Scene& s) {
             const auto seal = last_seal(s);
             cut_behind(s, [&](const std::string& line) {
                 return journal::text_member(line, "kind") == "checkpoint" && *journal::line_seq(line) > seal;
             });
         }},
        {"the journal cut there, while the SIEM has the checkpoints", With::anchors, "truncated",
         [](Scene& s) {
             const auto seal = last_seal(s);
             cut_behind(s, [&](const std::string& line) {
                 return journal::text_member(line, "kind") == "checkpoint" && *journal::line_seq(line) > seal;
             });
         }},
        {"a record twice", With::nothing, "inserted",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) { lines.insert(lines.begin() + 4, lines[3]); });
         }},
        {"a forged record between two", With::nothing, "altered",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 auto forged = lines[4];
                 change(forged, "\"written\":\"20", "\"written\":\"19");
                 lines.insert(lines.begin() + 4, forged);
             });
             hash_again(s.segments[1]);
         }},
        {"two records in each other's place", With::nothing, "inserted",
         [](Scene& s) { edit_lines(s.segments[1], [](auto& lines) { std::swap(lines[3], lines[4]); }); }},
        {"two records' contents exchanged, numbers kept", With::nothing, "altered",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 const auto rest = [](const std::string& line) { return line.substr(line.find(',')); };
                 const auto head = [](const std::string& line) { return line.substr(0, line.find(',')); };
                 const auto a = lines[3], b = lines[4];
                 lines[3] = head(a) + rest(b);
                 lines[4] = head(b) + rest(a);
             });
             hash_again(s.segments[1]);
         }},
        {"a forged record at the end", With::nothing, "",
         [](Scene& s) {
             edit_lines(s.segments.back(), [](std::vector<std::string>& lines) {
                 const std::uint64_t seq = *journal::line_seq(lines.back()) + 1;
                 lines.push_back("{\"seq\":" + std::to_string(seq) +
                                 ",\"written\":\"2026-11-23T12:00:00.123456789Z\",\"kind\":\"stop\"}");
             });
             hash_again(s.segments.back());
         }},
        {"a segment's lines replaced by those of another host's", With::nothing, "altered",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 for (auto& line : lines)
                     if (const auto at = line.find("web1.dub"); at != std::string::npos) line[at] = 'x';
             });
             hash_again(s.segments[1]);
         }},
        {"a segment copied behind the last one", With::nothing, "inserted",
         [](Scene& s) {
             const auto next = s.journal / journal::segment_name(90'000);
             fs::copy_file(s.segments[1], next);
         }},
        {"a segment under another number", With::nothing, "deleted",
         [](Scene& s) {
             fs::rename(s.segments.back(), s.journal / journal::segment_name(90'000));
             fs::rename(s.hashes(s.last()), s.journal / journal::hash_file_name(90'000));
         }},
        {"a line feed removed", With::nothing, "damaged",
         [](Scene& s) {
             auto text = read_text(s.segments[1]);
             text.erase(text.find('\n'), 1);
             text.insert(0, "{");
             write_text(s.segments[1], text);
         }},
        {"zeros in the middle of a segment", With::nothing, "damaged",
         [](Scene& s) {
             auto text = read_text(s.segments[1]);
             const auto start = text.find('\n') + 1;
             std::fill_n(text.begin() + static_cast<long>(start), 100, '\0');
             write_text(s.segments[1], text);
         }},
        {"a hash file removed", With::nothing, "hash-file", [](Scene& s) { fs::remove(s.hashes(1)); }},
        {"a hash changed in a hash file", With::nothing, "altered",
         [](Scene& s) {
             auto text = read_text(s.hashes(1));
             text[journal::hash_header_bytes + 40] ^= 1;
             write_text(s.hashes(1), text);
         }},
        {"the frontier of the first kept hash file changed", With::nothing, "altered",
         [](Scene& s) {
             // As after a retention that gave up the hashes of the first segment, with another past.
             fs::remove(s.segments[0]);
             fs::remove(s.hashes(0));
             auto text = read_text(s.hashes(1));
             const auto at = text.find("frontier ") + 9;
             text[at] = text[at] == 'a' ? 'b' : 'a';
             write_text(s.hashes(1), text);
         }},
        {"the signature of a checkpoint", With::nothing, "signature",
         [](Scene& s) {
             edit_lines(s.segments[1], [](auto& lines) {
                 auto& line = lines[line_with(lines, "checkpoint")];
                 const auto at = line.find("\\u2014 ");
                 REQUIRE(at != std::string::npos);
                 const auto base64 = line.find(' ', at + 7) + 20;
                 line[base64] = line[base64] == 'A' ? 'B' : 'A';
             });
             hash_again(s.segments[1]);
         }},
        {"the public keys removed", With::nothing, "key-chain",
         [](Scene& s) { fs::remove(s.journal / "keys"); }},
        {"the last change of key removed from the chain", With::nothing, "key-chain",
         [](Scene& s) {
             const auto chain = evidence::KeyChain::read(read_text(s.journal / "keys"), std::nullopt);
             std::string text;
             for (std::size_t i = 0; i + 1 < chain.links.size(); i++) text += chain.links[i].note;
             write_text(s.journal / "keys", text);
         }},
        {"a change of key removed from the middle of the chain", With::nothing, "key-chain",
         [](Scene& s) {
             const auto chain = evidence::KeyChain::read(read_text(s.journal / "keys"), std::nullopt);
             std::string text;
             for (std::size_t i = 0; i < chain.links.size(); i++)
                 if (i != 2) text += chain.links[i].note;
             write_text(s.journal / "keys", text);
         }},
        {"everything made anew with keys of the attacker's own", With::nothing, "key-chain",
         [](Scene& s) {
             fs::remove_all(s.journal);
             const TempDir other;
             SignedJournal forged(other.path());
             fill(forged, 14);
             forged.stop();
             fs::copy(other.path() / "journal", s.journal);
         }},
        {"the past rewritten and signed with the stolen key of now", With::nothing, "altered",
         [](Scene& s) {
             rebuild(s.journal, s.stolen_key(), [](std::string& line) {
                 if (journal::line_seq(line) == 5) change(line, "\"CN\"", "\"IE\"");
             });
         }},
        {"the time since the last change of key rewritten with the stolen key", With::nothing, "",
         [](Scene& s) {
             const auto seal = last_seal(s);
             bool done = false;
             rebuild(s.journal, s.stolen_key(), [&](std::string& line) {
                 if (done || *journal::line_seq(line) <= seal + 2 || line.find("\"CN\"") == std::string::npos)
                     return;
                 change(line, "\"CN\"", "\"IE\"");
                 done = true;
             });
             REQUIRE(done);
         }},
        {"the same, while the SIEM has the checkpoints", With::anchors, "forked",
         [](Scene& s) {
             const auto seal = last_seal(s);
             bool done = false;
             rebuild(s.journal, s.stolen_key(), [&](std::string& line) {
                 if (done || *journal::line_seq(line) <= seal + 2 || line.find("\"CN\"") == std::string::npos)
                     return;
                 change(line, "\"CN\"", "\"IE\"");
                 done = true;
             });
             REQUIRE(done);
         }},
        {"the whole journal replaced by a younger one of the same host, with anchors", With::anchors,
         "key-chain",
         [](Scene& s) {
             fs::remove_all(s.journal);
             fs::remove_all(s.evidence);
             SignedJournal again(s.journal.parent_path());
             fill(again, 3);
         }},
    };
    return all;
}

Scene scene_in(const TempDir& dir) {
    fs::copy(original().dir.path(), dir.path(), fs::copy_options::recursive);
    Scene scene{dir.path() / "journal", dir.path() / "evidence", {}};
    for (const auto& segment : journal::list_segments(scene.journal)) scene.segments.push_back(segment.path);
    REQUIRE(scene.segments.size() >= 5);
    return scene;
}

}  // namespace

TEST_CASE("an untouched journal is good, with and without anchors", "[evidence][verify]") {
    const auto& made = original();
    const auto report = verify_with(made.dir.path() / "journal", made.genesis);
    INFO(problems_of(report));
    CHECK(report.good());
    REQUIRE(report.logs.size() == 1);
    CHECK(report.logs[0].checkpoints == 15);
    CHECK(report.logs[0].keys == 4);
    CHECK(report.logs[0].size == report.records);
    CHECK(report.not_signed == 1);  // the last checkpoint's own record
    CHECK(report.covered_from == records::format_time(sample_time(0)));
    CHECK(report.covered_to == records::format_time(sample_time(140)));
    const auto anchored = verify_with(made.dir.path() / "journal", made.genesis, &made.anchors);
    INFO(problems_of(anchored));
    CHECK(anchored.good());
    CHECK(anchored.logs[0].anchors == 15);
    CHECK(anchored.logs[0].anchored_size == anchored.logs[0].size - 1);
}

TEST_CASE("whatever is done to a journal is found, or documented as not to be found", "[evidence][tamper]") {
    std::size_t found = 0;
    for (const auto& item : cases()) {
        const TempDir dir;
        auto scene = scene_in(dir);
        item.tamper(scene);
        const auto& made = original();
        const auto report =
            verify_with(scene.journal, made.genesis, item.with == With::anchors ? &made.anchors : nullptr);
        INFO(item.what << ", wanted: " << item.code << "\n" << problems_of(report));
        if (std::string_view(item.code).empty()) {
            CHECK(report.good());
            continue;
        }
        CHECK(has_problem(report, item.code));
        ++found;
    }
    CHECK(found >= 25);
}

TEST_CASE("another genesis key is refused", "[evidence][verify]") {
    const auto key = evidence::SigningKey::generate();
    const auto other = evidence::PublicKey{"web1/egresswatch/0", key->public_bytes()}.vkey();
    CHECK(has_problem(verify_with(original().dir.path() / "journal", other), "key-chain"));
}

TEST_CASE("anchors of other hosts are no problem, but none of our own is", "[evidence][verify]") {
    const auto& made = original();
    const auto key = evidence::SigningKey::generate();
    const evidence::Checkpoint checkpoint{"other/egresswatch/1", 7, evidence::empty_root(), {}};
    const std::string foreign = evidence::sign_note(checkpoint.text(), checkpoint.origin, *key)->to_string();
    const std::string both = foreign + made.anchors;
    CHECK(verify_with(made.dir.path() / "journal", made.genesis, &both).good());
    CHECK(has_problem(verify_with(made.dir.path() / "journal", made.genesis, &foreign), "anchors"));
}
