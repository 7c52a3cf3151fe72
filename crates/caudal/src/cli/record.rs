//! `caudal record …`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::{duration, option, with_settings};
use crate::settings::Key;

/// Exit codes of `caudal record`.
const CODES: &str = "Commands work beside a server that runs on the same folder; restore alone does not.\n\
                     Exit code: 0 if all is well, 1 if something is not, 2 for a wrong command line.";

/// The command line of all of them.
pub(super) fn command() -> Command {
    let command = Command::new("record")
        .about("Reads, verifies, archives, exports and backs up consultation records")
        .after_help(CODES)
        .subcommand_required(true)
        .arg_required_else_help(true);
    let with_folder = [
        list(),
        show(),
        append(),
        tail(),
        verify(),
        head(),
        key(),
        receipt(),
        seal(),
        reindex(),
        export(),
        import(),
        stats(),
        backup(),
        restore(),
    ];
    let command = with_folder.into_iter().fold(command, |all, one| all.subcommand(with_settings(one, for_record)));
    command.subcommand(verify_receipt()).subcommand(verify_export())
}

fn list() -> Command {
    Command::new("list")
        .about("Lists consultations")
        .arg(
            option("sort", "ORDER")
                .value_parser(["recent", "oldest", "events_desc", "events_asc"])
                .default_value("recent")
                .help("order: newest, oldest, most events or fewest events first"),
        )
        .arg(option("limit", "N").value_parser(value_parser!(u32).range(1..)).default_value("50").help("how many"))
        .arg(json("one JSON object a line"))
}

fn show() -> Command {
    Command::new("show")
        .about("Shows the state of a consultation and what its SOAP note lacks")
        .arg(id())
        .arg(json("print one JSON object"))
}

fn append() -> Command {
    Command::new("append")
        .about("Appends an event; a printed event is on disk")
        .after_help(
            "Example:\n  caudal record append c1 --type MESSAGE_RECEIVED --payload '{\"message\": \"Hola\"}' --create",
        )
        .arg(id())
        .arg(option("type", "TYPE").required(true).help("the event's type, as docs/events.md lists them"))
        .arg(
            option("payload", "JSON|@FILE|-")
                .required(true)
                .allow_hyphen_values(true)
                .help("payload: a JSON object, @FILE, or - for standard input"),
        )
        .arg(option("user", "NAME").help("user who records it"))
        .arg(option("event-id", "UUID").help("id of the event; appended again with the same id, it is recorded once"))
        .arg(
            option("expected-version", "N")
                .value_parser(value_parser!(u64))
                .help("append only if the consultation has exactly this many events"),
        )
        .arg(flag("create", "make the consultation if it is not there"))
}

fn tail() -> Command {
    Command::new("tail")
        .about("Prints events, one JSON object a line")
        .arg(id())
        .arg(flag("follow", "go on with those that come").short('f'))
        .arg(
            option("after", "N")
                .value_parser(value_parser!(u64).range(..=i64::MAX as u64))
                .default_value("0")
                .help("only events after this sequence"),
        )
}

fn verify() -> Command {
    Command::new("verify")
        .about("Verifies every hash and reports the first bad event")
        .arg(id().required(false).required_unless_present("all"))
        .arg(
            flag("all", "every consultation, the audit log, the database and all archives")
                .conflicts_with_all(["id", "head"]),
        )
        .arg(path("head", "FILE").help("a head stored elsewhere, to detect removal of the newest events too"))
        .arg(public_key().requires("head"))
        .arg(json("print one JSON object"))
}

fn head() -> Command {
    Command::new("head")
        .about("Prints the signed head of a consultation, to be stored elsewhere")
        .arg(id())
        .arg(output())
}

fn key() -> Command {
    Command::new("key").about("Prints the public key that heads are signed with")
}

fn receipt() -> Command {
    Command::new("receipt")
        .about("Creates a receipt: a proof that an event is in a consultation")
        .arg(id())
        .arg(Arg::new("event").required(true).value_name("EVENT").help("its id, or its sequence"))
        .arg(output())
}

fn verify_receipt() -> Command {
    Command::new("verify-receipt")
        .about("Verifies a receipt, without its record")
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("the receipt; - reads standard input"),
        )
        .arg(public_key())
}

fn seal() -> Command {
    Command::new("seal")
        .about("Moves events to archives; they are removed from the database only after the archive was read back")
        .arg(id().required(false).help("only this consultation"))
        .arg(
            duration("older-than")
                .default_value("30d")
                .conflicts_with("id")
                .help("only consultations without new events for this long"),
        )
        .arg(codec())
        .arg(
            option("size-limit", "SIZE")
                .value_parser(size)
                .help("size at which an archive file is closed [default: seal_file_mb]"),
        )
        .arg(json("print one JSON object"))
}

fn reindex() -> Command {
    Command::new("reindex")
        .about("Rewrites archives that were changed or damaged since they were sealed, from their events")
        .after_help(
            "Archives whose index is damaged, or that another program has written to. Each is verified before it takes the\n\
             place of the file, which stays beside it under another name.",
        )
        .arg(codec())
        .arg(json("answer as one JSON object"))
}

fn export() -> Command {
    Command::new("export")
        .about("Exports a consultation, with a manifest of hashes")
        .arg(id())
        .arg(path("output", "DIR").short('o').required(true).help("folder to create"))
        .arg(
            option("format", "LIST")
                .value_delimiter(',')
                .value_parser(["md", "json", "csv"])
                .default_value("md,json")
                .help("formats, comma-separated"),
        )
        .arg(option("user", "NAME").help("user who exports it"))
}

fn verify_export() -> Command {
    Command::new("verify-export")
        .about("Verifies an export against its manifest, without its record")
        .arg(Arg::new("folder").required(true).value_name("DIR").value_parser(value_parser!(PathBuf)))
        .arg(public_key())
}

fn import() -> Command {
    Command::new("import")
        .about("Imports the events of an HDF5 corpus; idempotent: a second run resumes and skips duplicates")
        .arg(Arg::new("file").required(true).value_name("FILE").value_parser(value_parser!(PathBuf)))
        .arg(json("print one JSON object"))
}

fn stats() -> Command {
    Command::new("stats").about("Shows counts, sizes and the state of the store").arg(json("print one JSON object"))
}

fn backup() -> Command {
    Command::new("backup").about("Writes a consistent copy of the database while it is in use").arg(file())
}

fn restore() -> Command {
    Command::new("restore").about("Restores a backup; there must be no database and no running server").arg(file())
}

fn id() -> Arg {
    Arg::new("id").required(true).value_name("ID").help("the consultation")
}

fn file() -> Arg {
    Arg::new("file").required(true).value_name("FILE").value_parser(value_parser!(PathBuf)).help("the copy")
}

fn path(name: &'static str, value: &'static str) -> Arg {
    option(name, value).value_parser(value_parser!(PathBuf))
}

fn output() -> Arg {
    path("output", "FILE").short('o').help("where to write [default: standard output]")
}

fn public_key() -> Arg {
    option("key", "HEX").help("public key that must have signed it, as printed by `caudal record key`")
}

fn codec() -> Arg {
    option("codec", "CODEC").help("none, gzip-1 to 9, lzf, lz4 or zstd-1 to 19 [default: seal_codec]")
}

fn json(help: &'static str) -> Arg {
    flag("json", help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Bytes, as people write them: `4GB`, `512 MiB`, `1000000`.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err("write a number and B, KB, MB, GB, TB, KiB, MiB or GiB".to_owned()),
    };
    match text[..digits].parse::<f64>() {
        Ok(number) if number * unit >= 1.0 => Ok((number * unit) as u64),
        _ => Err("it is no size: write 4GB, or 500MB".to_owned()),
    }
}

/// Settings of the record's commands without a server.
fn for_record(key: &Key) -> bool {
    const BEGINNINGS: [&str; 4] = ["database_", "db_", "record_", "seal_"];
    matches!(key.name, "data_dir" | "log_level") || BEGINNINGS.iter().any(|begins| key.name.starts_with(begins))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4GB"), Ok(4_000_000_000));
        assert_eq!(size("1.5 MiB"), Ok(1_572_864));
        assert_eq!(size("77"), Ok(77));
        for wrong in ["", "GB", "4 parsecs", "0", "-1", "1..2"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
