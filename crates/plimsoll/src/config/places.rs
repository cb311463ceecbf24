//! Where the state folder and the control socket are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const SOCKET_NAME: &str = "plimsoll.sock";
const ROOT_STATE: &str = "/var/lib/plimsoll";
const ROOT_SOCKET: &str = "/run/plimsoll/plimsoll.sock";

/// What decides: the flags, the configuration, and who asks.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    /// `--state`
    pub state: Option<&'a Path>,
    /// `--socket`
    pub socket: Option<&'a Path>,
    /// `admin.socket`, where a configuration could be read.
    pub configured: Option<&'a Path>,
    pub is_root: bool,
}

/// `--state`, or /var/lib/plimsoll for root, or the user's own state folder.
pub fn state_folder(asked: &Asked<'_>, environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if let Some(state) = asked.state {
        return state.to_owned();
    }
    if asked.is_root {
        return ROOT_STATE.into();
    }
    let folder = |name: &str| environment(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(std::env::temp_dir).join("plimsoll")
}

/// `--socket`, or `admin.socket`, or beside the state where `--state` is given, or the usual place: what names the
/// socket itself comes before what only implies it.
pub fn socket(asked: &Asked<'_>, environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let beside = asked.state.map(|state| state.join(SOCKET_NAME));
    let told = asked.socket.or(asked.configured).map(Path::to_owned).or(beside);
    told.unwrap_or_else(|| {
        if asked.is_root { ROOT_SOCKET.into() } else { state_folder(asked, environment).join(SOCKET_NAME) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Option<OsString> {
        (name == "HOME").then(|| "/home/ada".into())
    }

    #[test]
    fn what_names_the_socket_comes_before_what_implies_it() {
        let mut asked = Asked::default();
        assert_eq!(socket(&asked, home), Path::new("/home/ada/.local/state/plimsoll/plimsoll.sock"));
        asked.state = Some(Path::new("/tmp/state"));
        assert_eq!(socket(&asked, home), Path::new("/tmp/state/plimsoll.sock"));
        asked.configured = Some(Path::new("/x/admin.sock"));
        assert_eq!(socket(&asked, home), Path::new("/x/admin.sock"));
        asked.socket = Some(Path::new("/y.sock"));
        assert_eq!(socket(&asked, home), Path::new("/y.sock"));
    }

    #[test]
    fn root_uses_the_systems_places() {
        let asked = Asked { is_root: true, ..Asked::default() };
        assert_eq!(state_folder(&asked, home), Path::new(ROOT_STATE));
        assert_eq!(socket(&asked, home), Path::new(ROOT_SOCKET));
    }
}
