//! A command as it travels from guard to init: too long for a packet, so in a file of memory.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_kernel::Ids;
use plimsoll_kernel::cgroup::Membership;
use plimsoll_kernel::spawn::{self, Command, SpawnError, Step};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use crate::protocol::Spawn;
use crate::wire::{Garbled, Reader, Writer};

/// More than the kernel takes for arguments and environment together, with the usual limit of the stack.
const COMMAND_BYTES_MAX: u64 = 4 << 20;

/// The file of a command, without its descriptors.
pub(crate) fn write(command: &Command) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("plimsoll-command", MemfdFlags::CLOEXEC)?);
    file.write_all(&encode(command))?;
    file.rewind()?;
    Ok(file.into())
}

/// The command in the file, to be completed with these descriptors.
pub(crate) fn read(file: OwnedFd, output: OwnedFd, join: Membership) -> Result<Command, Errno> {
    let mut bytes = Vec::new();
    let read = File::from(file).take(COMMAND_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    decode(&bytes, output, join).map_err(|Garbled| Errno::BADMSG)
}

/// Starts what was asked for. Also the read end of its output, where that is to be kept.
pub(crate) fn begin(
    request: &Spawn,
    mut files: impl Iterator<Item = OwnedFd>,
) -> Result<(spawn::Pending, Option<OwnedFd>), SpawnError> {
    let failed = |errno| SpawnError { step: Step::Prepare, errno, object: PathBuf::from(&request.name) };
    let mut next = || files.next().ok_or_else(|| failed(Errno::BADF));
    let (file, writer) = (next()?, next()?);
    let output = if request.has_output { Some(next()?) } else { None };
    let folder = if request.has_folder { Some(next()?) } else { None };
    let join = Membership { folder, files: files.collect() };
    let command = read(file, writer, join).map_err(failed)?;
    Ok((spawn::begin(&command)?, output))
}

fn encode(command: &Command) -> Vec<u8> {
    let mut to = Writer::default();
    to.count(command.argv.len());
    command.argv.iter().for_each(|one| to.os(one));
    to.option(command.program.as_ref(), |to, program| to.os(program.as_os_str()));
    to.count(command.env.len());
    for (key, value) in &command.env {
        to.os(key);
        to.os(value);
    }
    to.os(command.cwd.as_os_str());
    to.option(command.ids.as_ref(), |to, ids| {
        number(to, ids.uid);
        number(to, ids.gid);
        to.count(ids.groups.len());
        ids.groups.iter().for_each(|group| number(to, *group));
    });
    to.option(command.nofile, Writer::u64);
    to.option(command.umask, number);
    to.flag(command.no_new_privs);
    to.option(command.oom_score_adj, |to, score| to.i32(i32::from(score)));
    to.u64(u64::try_from(command.within.as_millis()).unwrap_or(u64::MAX));
    to.0
}

fn decode(bytes: &[u8], output: OwnedFd, join: Membership) -> Result<Command, Garbled> {
    let mut from = Reader(bytes);
    let argv = (0..from.count()?).map(|_| from.os()).collect::<Result<_, _>>()?;
    let program = from.option(Reader::os)?.map(Into::into);
    let env = (0..from.count()?).map(|_| Ok((from.os()?, from.os()?))).collect::<Result<_, Garbled>>()?;
    let cwd = from.os()?.into();
    let ids = from.option(|from| {
        let (uid, gid) = (read_number(from)?, read_number(from)?);
        let groups = (0..from.count()?).map(|_| read_number(from)).collect::<Result<_, _>>()?;
        Ok(Ids { uid, gid, groups })
    })?;
    let command = Command {
        program,
        ids,
        nofile: from.option(Reader::u64)?,
        umask: from.option(read_number)?,
        no_new_privs: from.flag()?,
        oom_score_adj: from.option(|from| i16::try_from(from.i32()?).map_err(|_| Garbled))?,
        within: Duration::from_millis(from.u64()?),
        join,
        ..Command::new(argv, env, cwd, output)
    };
    from.end()?;
    Ok(command)
}

fn number(to: &mut Writer, value: u32) {
    to.u64(u64::from(value));
}

fn read_number(from: &mut Reader<'_>) -> Result<u32, Garbled> {
    u32::try_from(from.u64()?).map_err(|_| Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_command_arrives_as_it_was_sent() {
        let argv = vec!["node".into(), "server.js".into(), String::new().into()];
        let env = vec![("A".into(), "1\n2".into()), ("B".into(), String::new().into())];
        let sent = Command {
            program: Some("/usr/bin/node".into()),
            ids: Some(Ids { uid: 33, gid: 34, groups: vec![1, 2, 3] }),
            nofile: Some(8192),
            umask: Some(0o027),
            no_new_privs: false,
            oom_score_adj: Some(-17),
            within: Duration::from_millis(1234),
            ..Command::new(argv, env, "/srv".into(), null())
        };
        let received = read(write(&sent).unwrap(), null(), Membership::default()).unwrap();
        assert_eq!((&received.argv, &received.env), (&sent.argv, &sent.env));
        assert_eq!((&received.program, &received.cwd, &received.ids), (&sent.program, &sent.cwd, &sent.ids));
        assert_eq!(
            (received.nofile, received.umask, received.within),
            (Some(8192), Some(0o027), sent.within)
        );
        assert_eq!((received.no_new_privs, received.oom_score_adj), (false, Some(-17)));
    }

    #[test]
    fn a_file_cut_short_is_no_command() {
        let bytes = encode(&Command::new(vec!["true".into()], Vec::new(), "/".into(), null()));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], null(), Membership::default()).is_err());
        }
    }
}
