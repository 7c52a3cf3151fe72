//! `caudal token`: the admin token of a server on this machine, for programs such as curl.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{CommandError, other};
use crate::admin_token;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let port = *matches.get_one::<u16>("port").expect("it has a default");
    match admin_token::find(port).into_iter().next() {
        Some(token) => {
            println!("{token}");
            Ok(ExitCode::SUCCESS)
        }
        None => Err(other(format!(
            "there is no admin token of a server on port {port}: expected one of this user's that runs without an admin_key; \
             name its port with --port, or the admin_port where it has one"
        ))),
    }
}
