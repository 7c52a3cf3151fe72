//! Standard output and standard error of commands. The macros of this module stand in for those of `std`, which panic
//! where the reader is gone (`caudal config | head -3`) or nothing can be written (`> /dev/full`). What they print may hold
//! words of a server, a model or a caller: what would act on a terminal is printed as escapes, which JSON reads as the same.
//!
//! A closed pipe ends the process as it ends other programs, by SIGPIPE. The signal itself stays ignored: sockets and
//! pipes to child processes must not end a server or a run of a pipeline.

use std::{
    fmt,
    io::{self, Write},
};

use signal_hook::{consts::SIGPIPE, low_level};

/// `std::print!`, but for what happens when it fails.
macro_rules! print {
    ($($words:tt)*) => { $crate::output::write(format_args!($($words)*)) };
}

/// `std::println!`, but for what happens when it fails.
macro_rules! println {
    () => { $crate::output::write(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// `std::eprint!`; what cannot be written is dropped.
macro_rules! eprint {
    ($($words:tt)*) => { $crate::output::write_error(format_args!($($words)*)) };
}

/// `std::eprintln!`; what cannot be written is dropped.
macro_rules! eprintln {
    () => { $crate::output::write_error(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($words)*))) };
}

/// Writes to standard output; ends the process where that fails.
pub(crate) fn write(words: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let written = out.write_all(printable(words).as_bytes()).and_then(|()| out.flush());
    drop(out);
    if let Err(error) = written {
        fail(&error);
    }
}

/// Writes to standard error as far as possible.
pub(crate) fn write_error(words: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_all(printable(words).as_bytes());
}

fn printable(words: fmt::Arguments<'_>) -> String {
    caudal_types::printable_lines(&words.to_string()).into_owned()
}

/// Ends the process because standard output cannot be written: quietly where its reader is gone, else with a message.
/// Nothing is torn down, because a model may be running.
pub(crate) fn fail(error: &io::Error) -> ! {
    crate::logging::finish();
    if error.kind() == io::ErrorKind::BrokenPipe {
        // Returns only where the signal cannot be raised.
        let _ = low_level::emulate_default_handler(SIGPIPE);
        low_level::exit(128 + SIGPIPE);
    }
    write_error(format_args!("caudal: standard output cannot be written: {error}\n"));
    low_level::exit(1);
}
