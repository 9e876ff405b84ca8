// tests/unit/agent/evidence_merkle_test.cpp - tree, notes and keys against published vectors.
// SPDX-License-Identifier: Apache-2.0
//
// Figures: the leaf inputs, roots and proofs of github.com/transparency-dev/merkle (testonly/constants.go,
// testdata/*/happy-path.json), the examples of c2sp.org/signed-note, and RFC 8032 section 7.1.
#include <map>

#include "agent/evidence/anchors.h"
#include "agent/evidence/key_chain.h"
#include "agent/evidence/merkle.h"
#include "agent/evidence/note.h"
#include "tests/support/catch.h"

using namespace egresswatch::evidence;

namespace {

std::string from_hex(std::string_view hex) {
    std::string out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
    return out;
}

const std::vector<std::string> leaf_inputs{
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"};
const std::vector<std::string> roots{"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                     "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                     "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                     "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                     "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                     "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                     "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                     "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                     "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};

std::vector<Hash> leaves() {
    std::vector<Hash> out;
    for (const auto& input : leaf_inputs) out.push_back(leaf_hash(from_hex(input)));
    return out;
}

Hash root_of(const std::vector<Hash>& all, const Range& range) {
    Frontier tree;
    for (auto i = range.first; i < range.last; i++) tree.append(all[i]);
    return tree.root();
}

std::vector<Hash> proof_of(const std::vector<Hash>& all, const std::vector<Range>& ranges) {
    std::vector<Hash> out;
    for (const auto& range : ranges) out.push_back(root_of(all, range));
    return out;
}

}  // namespace

TEST_CASE("roots and hashes are those of RFC 6962's published trees", "[evidence][merkle]") {
    CHECK(to_hex(empty_root()) == roots[0]);
    Frontier tree;
    const auto all = leaves();
    for (std::size_t i = 0; i < all.size(); i++) {
        tree.append(all[i]);
        CHECK(to_hex(tree.root()) == roots[i + 1]);
        const auto again = Frontier::restore(tree.size(), tree.nodes());
        REQUIRE(again);
        CHECK(again->root() == tree.root());
    }
    CHECK_FALSE(Frontier::restore(3, tree.nodes()));
}

TEST_CASE("published inclusion and consistency proofs", "[evidence][merkle]") {
    const auto all = leaves();
    // testdata/inclusion/1 and 3, testdata/consistency/1 and 3 (happy path).
    CHECK(to_base64(proof_of(all, inclusion_ranges(0, 8))[2]) ==
          "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=");
    CHECK(to_base64(proof_of(all, inclusion_ranges(2, 3)).at(0)) ==
          "+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=");
    const auto two_five = proof_of(all, consistency_ranges(2, 5));
    REQUIRE(two_five.size() == 2);
    CHECK(to_base64(two_five[0]) == "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=");
    CHECK(to_base64(two_five[1]) == "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=");
    const auto one_eight = proof_of(all, consistency_ranges(1, 8));
    REQUIRE(one_eight.size() == 3);
    CHECK(to_base64(one_eight[0]) == "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=");
}

TEST_CASE("every proof of every small tree holds, and no changed one does", "[evidence][merkle]") {
    std::vector<Hash> all;
    for (int i = 0; i < 33; i++) all.push_back(leaf_hash(std::to_string(i)));
    for (std::uint64_t size = 1; size <= all.size(); size++) {
        const Hash root = root_of(all, {0, size});
        for (std::uint64_t index = 0; index < size; index++) {
            auto proof = proof_of(all, inclusion_ranges(index, size));
            REQUIRE(root_from_inclusion(all[index], index, size, proof) == root);
            REQUIRE(root_from_inclusion(all[(index + 1) % all.size()], index, size, proof) != root);
            if (proof.empty()) continue;
            proof[0][5] ^= 1;
            REQUIRE(root_from_inclusion(all[index], index, size, proof) != root);
            proof.pop_back();
            REQUIRE_FALSE(root_from_inclusion(all[index], index, size, proof));
        }
        for (std::uint64_t old_size = 1; old_size <= size; old_size++) {
            const Hash old_root = root_of(all, {0, old_size});
            auto proof = proof_of(all, consistency_ranges(old_size, size));
            REQUIRE(consistent(old_size, old_root, size, root, proof));
            REQUIRE_FALSE(consistent(old_size, all[0], size, old_size == 1 ? all[1] : root, proof));
            if (proof.empty()) continue;
            proof.back()[0] ^= 1;
            REQUIRE_FALSE(consistent(old_size, old_root, size, root, proof));
        }
    }
}

TEST_CASE("the examples of the signed-note specification", "[evidence][note]") {
    const auto key =
        PublicKey::parse_vkey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    REQUIRE(key);
    CHECK(key->id() == 0x530d903a);
    CHECK(key->vkey() == "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    const std::string text =
        "This is an example message.\n\n"
        "\xE2\x80\x94 example.com/foo "
        "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    const auto note = parse_note(text);
    REQUIRE(note);
    CHECK(note->signed_by(*key));
    CHECK(note->to_string() == text);
    auto changed = *note;
    changed.text[0] = 't';
    CHECK_FALSE(changed.signed_by(*key));
    // A checkpoint of the tlog-checkpoint specification.
    const auto checkpoint = Checkpoint::parse(
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n");
    REQUIRE(checkpoint);
    CHECK(checkpoint->size == 20852163);
    for (const char* wrong : {"", "a\n1\n", "a\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
                              "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2=\n"})
        CHECK_FALSE(Checkpoint::parse(wrong));
    for (const char* wrong : {"", "text\n", "text\n\nno signature\n", "text\n\n\xE2\x80\x94 name\n",
                              "text\x01\n\n\xE2\x80\x94 name AAAAAAAA\n"})
        CHECK_FALSE(parse_note(wrong));
    CHECK_FALSE(
        PublicKey::parse_vkey("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"));
}

TEST_CASE("Ed25519 signs as RFC 8032's test vectors do", "[evidence][note]") {
    struct Vector {
        const char *seed, *key, *message, *signature;
    };
    const Vector vectors[] = {{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                               "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
                               "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33"
                               "bacc61e39701cf9b46bd25bf5f0"
                               "595bbe24655141438e7a100b"},
                              {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                               "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
                               "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e159"
                               "96e458f3613d0f11d8c387b2eae"
                               "b4302aeeb00d291612bb0c00"},
                              {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                               "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
                               "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f"
                               "290ae67f760984dc6594a7c15e9"
                               "716ed28dc027beceea1ec40a"}};
    for (const auto& vector : vectors) {
        SigningKey::Seed seed;
        const std::string bytes = from_hex(vector.seed);
        std::copy(bytes.begin(), bytes.end(), seed.begin());
        const auto key = SigningKey::from_seed(seed);
        REQUIRE(key);
        CHECK(std::string(key->public_bytes().begin(), key->public_bytes().end()) == from_hex(vector.key));
        const std::string message = from_hex(vector.message);
        const auto signature = key->sign(message);
        REQUIRE(signature);
        CHECK(std::string(signature->begin(), signature->end()) == from_hex(vector.signature));
        CHECK(PublicKey{"n", key->public_bytes()}.verify(message, *signature));
        CHECK_FALSE(PublicKey{"n", key->public_bytes()}.verify(message + "x", *signature));
    }
}

TEST_CASE("anchors are found in notes, syslog lines and JSON, however they are escaped",
          "[evidence][anchors]") {
    const auto key = SigningKey::generate();
    std::map<int, std::string> notes;
    for (int size = 1; size <= 6; size++) {
        const Checkpoint checkpoint{
            "web1/egresswatch/0123", static_cast<std::uint64_t>(size), empty_root(), {}};
        notes[size] = sign_note(checkpoint.text(), checkpoint.origin, *key)->to_string();
    }
    const auto with = [](std::string text, const std::string& feed, const std::string& dash) {
        std::string out;
        for (std::size_t i = 0; i < text.size(); i++) {
            if (text[i] == '\n')
                out += feed;
            else if (text.compare(i, 3, "\xE2\x80\x94") == 0)
                out += dash, i += 2;
            else
                out += text[i];
        }
        return out;
    };
    const std::string text =
        notes[1] + "<165>1 host egresswatch - - [x y=\"z\"] {\"note\":\"" + with(notes[2], "\\n", "\\u2014") +
        "\",\"b\":1}\n" + "{\"msg\":\"{\\\"note\\\":\\\"" + with(notes[3], "\\\\n", "\\\\u2014") +
        "\\\"}\"}\n" + "checkpoint: " + with(notes[4], "\\x0a", "\xE2\x80\x94") +
        "\nnothing here \xE2\x80\x94 really\n" + "rsyslog: " + with(notes[5], "#012", "#342#200#224") + "\n" +
        notes[1] + notes[6];
    const auto anchors = find_anchors(text);
    REQUIRE(anchors.size() == 6);
    for (const auto& anchor : anchors) {
        CAPTURE(anchor.checkpoint.size);
        CHECK(anchor.checkpoint.origin == "web1/egresswatch/0123");
        CHECK(anchor.note.signed_by({"web1/egresswatch/0123", key->public_bytes()}));
        CHECK(anchor.note.to_string() == notes[static_cast<int>(anchor.checkpoint.size)]);
    }
}
