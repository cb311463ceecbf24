//! Finding the program, as `execvp` would, with the PATH that the child gets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

/// What shells and libcs use when there is no PATH.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// A name with a slash is left to `exec`, which resolves it from the child's folder. `EACCES` when there is a file of
/// the name, but none that may be executed.
pub(super) fn find(program: &OsStr, env: &[(OsString, OsString)], cwd: &Path) -> Result<PathBuf, Errno> {
    if program.is_empty() {
        return Err(Errno::NOENT);
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    // The first, which is the one that getenv in the child would find.
    let path = env.iter().find(|(key, _)| key == "PATH").map_or(OsStr::new(PATH_DEFAULT), |(_, value)| value);
    let mut refused = Errno::NOENT;
    for folder in path.as_bytes().split(|byte| *byte == b':') {
        // An empty entry is the working folder, and a relative one starts there: `join` does both.
        let candidate = cwd.join(OsStr::from_bytes(folder)).join(program);
        match access(&candidate, Access::EXEC_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Ok(()) | Err(Errno::ACCESS) => refused = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn env(path: &str) -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), path.into())]
    }

    fn file(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_executable_of_the_path_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::create_dir_all(one.join("tool")).unwrap();
        fs::create_dir_all(&two).unwrap();
        file(&two.join("tool"), 0o755);
        let path = format!("{}:/nonexistent:{}", one.display(), two.display());
        assert_eq!(find(OsStr::new("tool"), &env(&path), Path::new("/")), Ok(two.join("tool")));
    }

    #[test]
    fn relative_and_empty_entries_start_at_the_childs_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        file(&folder.path().join("bin/tool"), 0o755);
        file(&folder.path().join("here"), 0o755);
        assert_eq!(find(OsStr::new("tool"), &env("bin"), folder.path()), Ok(folder.path().join("bin/tool")));
        assert_eq!(find(OsStr::new("here"), &env(":/bin"), folder.path()), Ok(folder.path().join("here")));
    }

    #[test]
    fn missing_and_not_executable_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        file(&folder.path().join("data"), 0o644);
        let env = env(&folder.path().to_string_lossy());
        assert_eq!(find(OsStr::new("data"), &env, Path::new("/")), Err(Errno::ACCESS));
        assert_eq!(find(OsStr::new("nothing"), &env, Path::new("/")), Err(Errno::NOENT));
        assert_eq!(find(OsStr::new(""), &env, Path::new("/")), Err(Errno::NOENT));
        assert_eq!(find(OsStr::new("./data"), &env, Path::new("/")), Ok("./data".into()));
    }
}
