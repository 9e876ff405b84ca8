// capture/userspace/file_engine.h - the engine that reads a capture file instead of an interface.
//
// In:       pcap and pcapng files (pcap/file_reader.h), one batch a poll().   Out: as every engine.
// Clock:    packet time only; a file gives the same updates in the same order at any speed and on any number
// of
//           cores. The monotonic clock only where FileSpeed says when packets are due.
// Threads:  one; with `jobs`, so many less one that read and classify (classify_pool.h).
// Fails:    open() and poll() with what the reader says; everything before the damage has been counted.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "capture/engine.h"
#include "capture/userspace/classify_pool.h"
#include "capture/userspace/pacer.h"
#include "capture/userspace/piece_reader.h"
#include "classifier/flow_table.h"

namespace egresswatch::capture {

struct FileProgress {
    std::uint64_t packets = 0;
    std::uint64_t bytes_read = 0;
    std::optional<std::uint64_t> bytes_total;  // not known of a pipe
    std::uint64_t packets_without_time = 0;    // counted at the time of the packet before them
    std::uint64_t packets_out_of_order = 0;    // stamped earlier than a packet before them
    std::map<std::string, std::uint64_t>
        not_supported;  // name of the link type: packets, all counted as not IP
};

struct FileEngineOptions {
    static constexpr unsigned jobs_max = 64;

    unsigned jobs = 1;  // cores
    // How many times as fast as the packets came; 0: as fast as possible. Anything else takes one core.
    double speed = 0;
};

class FileEngine final : public Engine {
public:
    [[nodiscard]] static std::expected<std::unique_ptr<FileEngine>, FileError> open(
        const std::string& path, FlowTableConfig config, FileEngineOptions options = {});
    [[nodiscard]] static std::unique_ptr<FileEngine> of(FileReader reader, FlowTableConfig config,
                                                        FileEngineOptions options = {});
    ~FileEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "file"; }
    [[nodiscard]] std::expected<void, OsError> start(FlowSink& sink) override;
    // One batch, at most 1024 packets; never waits longer than the file's read() does, or, where a speed is
    // set, `timeout` for the next packet to be due. After the last one finished() is true.
    [[nodiscard]] std::expected<void, OsError> poll(std::chrono::milliseconds timeout) override;
    void stop() noexcept override;
    // With jobs: before start() only, and not again.
    [[nodiscard]] std::expected<void, OsError> install_region(const RegionTable& table) override;
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept override;
    [[nodiscard]] TotalsSnapshot totals() const override;

    [[nodiscard]] bool finished() const noexcept { return finished_; }
    // Why reading ended early, if it did.
    [[nodiscard]] const std::optional<FileError>& damage() const noexcept { return damage_; }
    [[nodiscard]] const FileProgress& progress() const noexcept { return progress_; }
    [[nodiscard]] const FlowTable& table() const noexcept { return table_; }

private:
    FileEngine(FileReader reader, FlowTableConfig config, FileEngineOptions options);
    // Counts what the piece says about itself. An error where it ends by damage.
    [[nodiscard]] std::expected<void, OsError> note(const FilePiece& piece);
    [[nodiscard]] std::expected<void, OsError> poll_paced(std::chrono::milliseconds timeout);

    FileEngineOptions options_;
    PieceReader reader_;
    FlowTable table_;
    FlowSink* sink_ = nullptr;
    bool finished_ = false;
    std::optional<FileError> damage_;
    FileProgress progress_;
    std::optional<std::uint64_t> file_bytes_;
    FilePiece piece_;             // where no pool reads
    std::size_t piece_done_ = 0;  // packets of it that were due
    std::optional<Pacer> pacer_;
    std::unique_ptr<ClassifyPool> pool_;  // last: its threads use the reader
};

}  // namespace egresswatch::capture
