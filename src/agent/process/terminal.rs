//! Commands on a terminal of their own. A process can only take a terminal as its controlling one
//! from inside: so a shim does it, and then becomes the command.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::files::TerminalJob;

/// The near end of a new terminal, and the device file of the far end.
///
/// # Errors
/// If the host has no more of them.
pub(super) fn open(columns: u16, rows: u16) -> io::Result<(OwnedFd, String)> {
    let near = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&near)?;
    rustix::pty::unlockpt(&near)?;
    let name = rustix::pty::ptsname(&near, Vec::new())?;
    if columns > 0 && rows > 0 {
        resize(&near, columns, rows)?;
    }
    Ok((near, name.to_string_lossy().into_owned()))
}

/// Changes the size; whatever runs on it is told.
///
/// # Errors
/// If it is closed.
pub(super) fn resize(near: &impl std::os::fd::AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(near, size)?)
}

/// Becomes the command; returns only what went wrong.
pub(super) fn become_command(job: &TerminalJob) -> String {
    let prepared = || -> io::Result<()> {
        rustix::process::setsid()?;
        let far = File::options().read(true).write(true).open(&job.terminal)?;
        rustix::process::ioctl_tiocsctty(&far)?;
        rustix::stdio::dup2_stdin(&far)?;
        rustix::stdio::dup2_stdout(&far)?;
        rustix::stdio::dup2_stderr(&far)?;
        Ok(())
    };
    if let Err(error) = prepared() {
        return format!("terminal {}: {error}", job.terminal);
    }
    match job.command.command() {
        Some(mut command) => command.exec().to_string(),
        None => "its command is empty".to_owned(),
    }
}
