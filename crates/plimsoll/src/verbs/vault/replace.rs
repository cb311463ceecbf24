//! `plimsoll vault restore --replace`: a live database goes back to a moment. The service is stopped by its guard, the
//! old file kept, the new one put in its place, the service started and looked at; and the old one is put back if that
//! fails.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use plimsoll_guard::control::client::ClientError;
use plimsoll_guard::records::Status;
use plimsoll_vault::agent::ask;
use plimsoll_vault::database::beside;
use plimsoll_vault::keeper::Wanted;
use plimsoll_vault::names::Millis;
use plimsoll_vault::plan::Target;
use plimsoll_vault::restore::Restorer;

use super::bar::Bar;
use super::{Chosen, VaultError, restore};
use crate::cli::{Exit, Global, OneService, VaultRestore};
use crate::verbs::order::{self, Order};
use crate::verbs::reach::{self, ReachError};

/// The files that make up a database.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

pub(super) fn run(
    args: &VaultRestore,
    chosen: &Chosen,
    restorer: &Restorer<'_>,
    target: Target,
    global: &Global,
    out: &mut dyn Write,
) -> Result<Exit, VaultError> {
    let live = &chosen.vault.database;
    if !args.yes && !std::io::stdin().is_terminal() {
        return Err(VaultError::Usage("replacing a live database asks first: add --yes".to_owned()));
    }
    // Proved before anything is touched.
    let fresh = live.with_extension(format!("restored-{}", Millis::now().0));
    let bar = Bar::new();
    let proved = restorer.restore(target, &fresh, &bar);
    bar.clear();
    let proved = proved?;
    if !args.json {
        restore::tell(&proved, &fresh, false, out)?;
    }
    if !args.yes && !agreed(live, chosen.table.service.as_deref())? {
        fs::remove_file(&fresh)?;
        return Err(VaultError::No("nothing was changed".to_owned()));
    }
    // The vault need not be alarmed about what is done on purpose.
    let _ = ask(&chosen.vault.state, &Wanted::Announce, |_| {});
    let service = Service { name: chosen.table.service.clone(), global };
    let kept = keep_name(live);
    service.stop()?;
    if let Err(error) = refuse_users(live, &fresh, global) {
        service.start()?;
        return Err(error);
    }
    if let Err(error) = exchange(live, &fresh, &kept) {
        put_back(live, &kept, None)?;
        service.start()?;
        return Err(error);
    }
    match service.start() {
        Ok(()) => {
            if args.json {
                restore::tell(&proved, live, true, out)?;
            } else {
                writeln!(out, "{} is in place; the one before it is {}", live.display(), kept.display())?;
            }
            Ok(Exit::Done)
        }
        Err(error) => Err(back_again(&service, live, &fresh, &kept, &error)),
    }
}

/// The service does not get ready with it: the old one gets its place back. What came of that.
fn back_again(service: &Service<'_>, live: &Path, fresh: &Path, kept: &Path, why: &VaultError) -> VaultError {
    if let Err(error) = service.stop() {
        return VaultError::No(format!(
            "the service does not get ready with it: {why}; and it cannot be stopped: {error}. {} is what was restored, the one before it is {}",
            live.display(),
            kept.display()
        ));
    }
    if let Err(error) = put_back(live, kept, Some(fresh)) {
        return VaultError::No(format!(
            "the service does not get ready with it: {why}; and the old database cannot be put back: {error}. It is {}, and the service is stopped",
            kept.display()
        ));
    }
    let started = service.start().map_or_else(|error| format!("; the service: {error}"), |()| String::new());
    VaultError::No(format!(
        "the service does not get ready with it, and the old database was put back: {why}; what was restored is {}{started}",
        fresh.display()
    ))
}

fn agreed(live: &Path, service: Option<&str>) -> Result<bool, VaultError> {
    let before = service.map_or_else(String::new, |name| format!("stop {name}, and "));
    write!(std::io::stderr(), "{before}replace {} by this? [y/N] ", live.display())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whoever has it open still would go on with the old file, unseen. The guard's own vault notices.
fn refuse_users(live: &Path, fresh: &Path, global: &Global) -> Result<(), VaultError> {
    let client = reach::client(global);
    let guard =
        reach::wait(async { Ok(client.get::<Status>("/api/v1/status").await?) }).map(|it| it.guard.pid);
    let users = users(live).into_iter().filter(|pid| Some(pid) != guard.as_ref().ok()).collect::<Vec<_>>();
    let Some(pid) = users.first() else { return Ok(()) };
    fs::remove_file(fresh)?;
    Err(VaultError::No(format!(
        "{} is in use by pid {pid}: stop it first; nothing was changed",
        live.display()
    )))
}

/// Processes that have it open, as far as we may see.
fn users(live: &Path) -> Vec<u32> {
    let Ok(live) = fs::metadata(live).map(|it| (it.dev(), it.ino())) else { return Vec::new() };
    let has_it = |process: &fs::DirEntry| {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut files = descriptors.filter_map(|it| fs::metadata(it.path()).ok());
        files.any(|it| (it.dev(), it.ino()) == live)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter(has_it).filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).collect()
}

/// `app.db.before-restore-20261123T200000Z`
fn keep_name(live: &Path) -> PathBuf {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    beside(live, &format!(".before-restore-{time}"))
}

/// All files of the old one move together: a log without its database, or beside another, is worth nothing and harms.
fn exchange(live: &Path, fresh: &Path, kept: &Path) -> Result<(), VaultError> {
    same_owner(live, fresh)?;
    for suffix in FILES {
        let (from, to) = (beside(live, suffix), beside(kept, suffix));
        if from.exists() {
            fs::rename(from, to)?;
        }
    }
    fs::rename(fresh, live)?;
    sync_names(live)
}

/// A crash of the machine brings none of the old names back.
fn sync_names(live: &Path) -> Result<(), VaultError> {
    let folder = live.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok(fs::File::open(folder)?.sync_all()?)
}

fn same_owner(live: &Path, fresh: &Path) -> Result<(), VaultError> {
    let Ok(meta) = fs::metadata(live) else { return Ok(()) };
    fs::set_permissions(fresh, meta.permissions())?;
    // Where that is not allowed, they are our own already.
    let _ = std::os::unix::fs::chown(fresh, Some(meta.uid()), Some(meta.gid()));
    Ok(())
}

/// What was tried is set aside, and all of the old one moves back.
fn put_back(live: &Path, kept: &Path, aside: Option<&Path>) -> Result<(), VaultError> {
    if !kept.exists() {
        return Ok(());
    }
    for suffix in FILES {
        let tried = beside(live, suffix);
        match aside {
            Some(aside) if tried.exists() => fs::rename(&tried, beside(aside, suffix))?,
            Some(_) | None => {}
        }
        let old = beside(kept, suffix);
        if old.exists() {
            fs::rename(old, tried)?;
        }
    }
    sync_names(live)
}

/// The service whose database it is, as far as a guard runs it.
struct Service<'a> {
    name: Option<String>,
    global: &'a Global,
}

impl Service<'_> {
    fn stop(&self) -> Result<(), VaultError> {
        self.order(|args, out| order::run(Order::Stop, args, self.global, out))
    }

    /// Ready again, by its own health check.
    fn start(&self) -> Result<(), VaultError> {
        self.order(|args, out| order::start_or_give_up(args, self.global, out))
    }

    fn order(
        &self,
        give: impl FnOnce(&OneService, &mut dyn Write) -> Result<Exit, ReachError>,
    ) -> Result<(), VaultError> {
        let Some(name) = &self.name else { return Ok(()) };
        let args = OneService { service: name.clone(), json: false };
        // What it says goes where progress goes.
        match give(&args, &mut std::io::stderr()) {
            Ok(_) | Err(ReachError::Client(ClientError::Unreachable { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_one_is_kept_whole_and_can_be_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
        for (name, content) in [("a.db", "old"), ("a.db-wal", "old log"), ("fresh", "new")] {
            fs::write(path(name), content).unwrap();
        }
        exchange(&path("a.db"), &path("fresh"), &path("kept")).unwrap();
        assert_eq!(
            [text("a.db"), text("a.db-wal"), text("kept"), text("kept-wal")],
            ["new", "", "old", "old log"]
        );
        fs::write(path("a.db-wal"), "new log").unwrap();
        put_back(&path("a.db"), &path("kept"), Some(&path("fresh"))).unwrap();
        assert_eq!(
            [text("a.db"), text("a.db-wal"), text("fresh"), text("fresh-wal")],
            ["old", "old log", "new", "new log"]
        );
    }
}
