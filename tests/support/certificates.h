// tests/support/certificates.h - a certificate authority of the test's own, made by the openssl program.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace egresswatch::testing {

class Certificates {
public:
    // With it: "server", for 127.0.0.1 and siem.example.org.
    explicit Certificates(std::filesystem::path dir) : dir_(std::move(dir)) {
        std::filesystem::create_directories(dir_);
        run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority "
            "-addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem");
        issue("server", "IP:127.0.0.1,DNS:siem.example.org");
    }

    // `days`: negative for one that has expired. The common name is a name that no test may be satisfied by.
    void issue(const std::string& name, const std::string& alternative_names, int days = 1) const {
        std::ofstream(dir_ / (name + ".ext")) << "subjectAltName=" << alternative_names << "\n";
        run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -keyout " + name +
            ".key -out " + name + ".csr");
        run("x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days " +
            std::to_string(days) + " -extfile " + name + ".ext -out " + name + ".pem");
    }

    [[nodiscard]] std::filesystem::path ca() const { return dir_ / "ca.pem"; }
    [[nodiscard]] std::filesystem::path certificate(const std::string& name) const {
        return dir_ / (name + ".pem");
    }
    [[nodiscard]] std::filesystem::path key(const std::string& name) const { return dir_ / (name + ".key"); }
    // As OpenSSL's own program computes it: "AB:CD:...".
    [[nodiscard]] std::string fingerprint(const std::string& name, const std::string& hash) const {
        run("x509 -noout -fingerprint -" + hash + " -in " + name + ".pem > " + name + ".fp");
        std::ifstream file(dir_ / (name + ".fp"));
        std::string line;
        std::getline(file, line);
        return line.substr(line.find('=') + 1);
    }

private:
    void run(const std::string& arguments) const {
        const std::string command = "cd '" + dir_.string() + "' && openssl " + arguments + " 2>>openssl.log";
        if (std::system(command.c_str()) != 0) throw std::runtime_error(command);
    }
    std::filesystem::path dir_;
};

}  // namespace egresswatch::testing
