//! A configuration without a file: `plimsoll run -- COMMAND…`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use plimsoll_core::{
    DescriptorConfig, HealthConfig, MemoryConfig, RecoveryConfig, TASKS_DEFAULT, soft_of_aborting_runtime,
};

use super::finding::{ConfigErrors, Log};
use super::host::{Host, check_command};
use super::layers;
use super::model::{
    Admin, Check, Config, Environment, LogConfig, PORT_ENV_DEFAULT, RuntimeChoice, Service, StopSignal,
};
use super::others::ADMIN_HTTP_DEFAULT;
use super::placeholders;
use super::service::is_name;

/// What the command line can say about a service that has no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Where the command listens, when it cannot be told by PORT.
    pub address: Option<SocketAddr>,
    /// What layer 6 asks; a TCP connection when nothing is said.
    pub check: Option<Check>,
}

impl Config {
    /// One service with every default, named for its program, in the folder where it was asked for.
    pub fn for_command(argv: &[String], options: CommandOptions, host: &Host) -> Result<Self, ConfigErrors> {
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let service = command_service(argv, options, &folder);
        let log = Log::default();
        check_argv(&log, argv);
        check_command(&log, host, 0..0, argv, &service);
        if log.has_errors() {
            return Err(ConfigErrors::of(log.into_findings(None)));
        }
        Ok(Self {
            source: None,
            folder,
            services: vec![service],
            front: None,
            admin: Admin { http: ADMIN_HTTP_DEFAULT, token: None, socket: None },
            vaults: Vec::new(),
            alerts: None,
            sweeps: Vec::new(),
            docker: None,
            not_yet: Vec::new(),
        })
    }
}

fn check_argv(log: &Log, argv: &[String]) {
    if argv.first().is_none_or(String::is_empty) {
        log.error(None, "the command is empty", "write plimsoll run -- node server.js");
    }
    for name in argv.iter().filter_map(|argument| placeholders::unknown(argument)) {
        let hint =
            format!("there are {{port}} and {{socket}}; a literal {{{name}}} is written {{{{{name}}}}}");
        log.error(None, format!("unknown placeholder {{{name}}}"), &hint);
    }
}

fn command_service(argv: &[String], options: CommandOptions, folder: &Path) -> Service {
    let check = options.check.unwrap_or(Check::Tcp);
    let probed = check != Check::Nothing;
    let mut service = Service {
        name: name_for(argv),
        command: argv.to_vec(),
        cwd: folder.to_owned(),
        environment: Environment::default(),
        user: None,
        group: None,
        no_new_privs: true,
        replicas: 1,
        tasks: TASKS_DEFAULT,
        port_env: options.address.is_none().then(|| PORT_ENV_DEFAULT.to_owned()),
        address: options.address,
        protocol: plimsoll_front::config::Protocol::default(),
        runtime: RuntimeChoice::Auto,
        memory: MemoryConfig::default(),
        descriptors: DescriptorConfig::default(),
        recovery: RecoveryConfig::default(),
        stop_signal: StopSignal::default(),
        check,
        health: HealthConfig { probed, ..HealthConfig::default() },
        logs: LogConfig::default(),
    };
    if layers::sets_v8_limit(&service) {
        service.memory.soft = soft_of_aborting_runtime(service.memory.hard);
    }
    service
}

/// `/opt/My_App` is `my-app`; what leaves nothing is `service`.
fn name_for(argv: &[String]) -> String {
    let program = argv.first().and_then(|program| Path::new(program).file_stem()).unwrap_or_default();
    let plain = program.to_string_lossy().to_lowercase();
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = plain.chars().map(letter).take(63).collect();
    let name = name.trim_matches('-');
    if is_name(name) { name.to_owned() } else { "service".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_service() {
        for (program, name) in
            [("node", "node"), ("/opt/My_App.sh", "my-app"), ("./---", "service"), ("é", "service")]
        {
            assert_eq!(name_for(&[program.to_owned()]), name);
        }
    }

    #[test]
    fn a_command_gets_the_defaults_and_what_was_said() {
        let address = "127.0.0.1:4000".parse().expect("an address");
        let options = CommandOptions { address: Some(address), check: Some(Check::Nothing) };
        let config =
            Config::for_command(&["sh".into(), "x".into()], options, &Host::this()).expect("sh is there");
        let service = &config.services[0];
        assert_eq!((service.name.as_str(), service.address), ("sh", Some(address)));
        assert!(!service.health.probed && !service.wants_port() && service.has_address());
        assert_eq!(service.memory, MemoryConfig::default());
    }

    #[test]
    fn a_command_that_cannot_start_is_told_before_anything_starts() {
        let wrong = ["no-such-program-here".to_owned(), "{prot}".to_owned()];
        let errors =
            Config::for_command(&wrong, CommandOptions::default(), &Host::this()).expect_err("two faults");
        assert_eq!(errors.errors(), 2);
        assert!(errors.to_string().contains("is not in PATH"), "{errors}");
        let empty = Config::for_command(&[], CommandOptions::default(), &Host::this()).expect_err("empty");
        assert!(empty.to_string().contains("the command is empty"), "{empty}");
    }
}
