//! What the commands answer to wrong input: the message names the key and the remedy, the exit status tells
//! wrong usage (2) from everything else (1).

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

fn turnpike(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike")).args(arguments).output().unwrap()
}

/// Runs the command, which must fail with this exit status, and returns what it says.
fn refusal(arguments: &[&str], code: i32) -> String {
    let output = turnpike(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn assert_says(text: &str, said: &[&str]) {
    for said in said {
        assert!(text.contains(said), "{said:?} is not in {text:?}");
    }
}

#[test]
fn no_credentials_no_start() {
    let text = refusal(&["run", "--listen", "udp://127.0.0.1:3478", "--datapath", "userspace"], 1);
    assert_says(&text, &["error: users: no credentials", "--user NAME:PASSWORD", "[users]"]);
}

#[test]
fn a_file_with_mistakes_is_told_all_of_them_with_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnpike.toml");
    let file_name = file.to_str().unwrap();

    fs::write(&file, "lisen = [\"udp://127.0.0.1:3478\"]\n").unwrap();
    let text = refusal(&["run", "-c", file_name], 1);
    assert_says(&text, &[&format!("error: {file_name}:1: lisen: unknown key: did you mean listen?")]);

    fs::write(
        &file,
        "listen = [\"udp://127.0.0.1:50000\"]\ninterfaces = [\"nic9\"]\nrelay_address = [\"192.0.2.77\"]\n",
    )
    .unwrap();
    let text = refusal(&["check", "-c", file_name], 1);
    assert_says(
        &text,
        &[
            ":2: interfaces nic9: there is no such interface: this host has lo",
            ":1: listen udp://127.0.0.1:50000: overlapping ports with relay_ports 49152-65535",
            ":3: relay_address 192.0.2.77: the address is not on this host, which has",
            "users: no credentials",
        ],
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 4, "{text}");
}

#[test]
fn wrong_usage_is_exit_status_2_with_the_remedy() {
    assert_says(
        &refusal(&["run", "--listen", "tcp://127.0.0.1:3478"], 2),
        &["--listen", "not supported yet"],
    );
    assert_says(&refusal(&["run", "--relay-ports", "60000-50000"], 2), &["--relay-ports", "50000-60000"]);
    assert_says(&refusal(&["run", "--external-ip", "203.0.113.7"], 2), &["--external-ip", "PUBLIC/PRIVATE"]);
    assert_says(
        &refusal(&["run", "--external-ip", "2001:db8::1/10.0.0.5"], 2),
        &["--external-ip", "two families"],
    );
    assert_says(&refusal(&["run", "--listen", "udp://::1"], 2), &["--listen", "write udp://[::1]:3478"]);
    assert_says(
        &refusal(&["run", "--alternate-server", "example.org"], 2),
        &["--alternate-server", "IP:PORT"],
    );
    assert_says(&refusal(&["run", "--log-format", "xml"], 2), &["--log-format", "write text or json"]);
    assert_says(&refusal(&["run", "--datapath", "xdp"], 2), &["--datapath", "xdp-native"]);
    assert_says(&refusal(&["serve"], 2), &["serve"]);
}

#[test]
fn a_password_is_in_no_message() {
    for (arguments, code) in [
        (["run", "--datapath", "userspace", "--user", "hunter2"], 1),
        (["run", "--datapath", "userspace", "--user", ":hunter2"], 1),
        (["run", "--datapath", "userspace", "--auth-secret", "hunter2 "], 1),
    ] {
        let text = refusal(&arguments, code);
        assert!(!text.contains("hunter2") && text.contains(&format!("error: {}: ", arguments[3])), "{text}");
    }
}

#[test]
fn a_port_in_use_is_named_with_the_way_to_its_owner() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    // Below or above, the port must be outside the relayed ones.
    let ports = if address.port() < 50000 { "60000-60999" } else { "40000-40999" };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = format!("udp://{address}");
    let options = [
        "--listen",
        &listen,
        "--relay-ports",
        ports,
        "--user",
        "u:p",
        "--realm",
        "example.org",
        "--datapath",
        "userspace",
        "--admin-socket",
        socket.to_str().unwrap(),
    ];

    let text = refusal(&[&["run"][..], &options].concat(), 1);
    assert_says(
        &text,
        &[&format!("listen {listen}: the port is in use"), &format!("'sport = :{}'", address.port())],
    );
    assert!(!socket.exists(), "a start that failed leaves nothing behind");

    let check = turnpike(&[&["check"][..], &options].concat());
    assert_eq!(check.status.code(), Some(1));
    assert_says(&String::from_utf8(check.stdout).unwrap(), &["FAILED", &listen, "the port is in use"]);

    drop(taken);
    let check = turnpike(&[&["check"][..], &options].concat());
    let text = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{text}");
    assert_says(&text, &["ok       the configuration is valid", &format!("{listen} is free")]);
}

#[test]
fn check_covers_limits_secrets_and_what_only_the_core_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnpike.toml");
    let secret = directory.path().join("secret");
    let socket = directory.path().join("admin.sock");
    fs::write(&secret, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    let check = |text: &str| {
        let common = format!(
            "datapath = \"userspace\"\nlisten = [\"udp://127.0.0.1:3479\"]\nadmin_socket = {socket:?}\n\
             auth_secret_file = {secret:?}\nrealm = \"example.org\"\n"
        );
        fs::write(&file, common + text).unwrap();
        let output = turnpike(&["check", "-c", file.to_str().unwrap()]);
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    };

    let (code, text) = check(
        "alternate_server = [\"192.0.2.2\"]\nhairpin = false\nsoftware = false\nmin_ipv6_mtu = 1400\n\
         [lifetimes]\nnonce = 600\n[limits]\nmax_allocations_per_user = 10\nbytes_per_second = 100000\n",
    );
    assert_eq!(code, Some(0), "{text}");
    assert_says(
        &text,
        &["ok       the configuration is valid", "can be read by every user of this host: `chmod o="],
    );
    assert_says(
        &text,
        &[
            "warning  alternate_server: clients are not served here but sent to 192.0.2.2:3478",
            "warning  hairpin: calls with both ends on this server fail",
        ],
    );

    for (text, said) in [
        ("min_ipv6_mtu = 1000", "min_ipv6_mtu 1000: every IPv6 link has 1280"),
        ("[lifetimes]\nnonce = 4000", "lifetimes nonce = 4000: a nonce is valid for an hour at most"),
        ("[limits]\nmax_channels = 0", "limits max_channels = 0: nobody could relay anything"),
        ("[limits]\nburst = 1", "limits burst = 1: there is no rate"),
        ("[users]\n\"a\\u200Bb\" = \"p\"", "user \"a\\u{200b}b\""),
    ] {
        let (code, answer) = check(text);
        assert_eq!(code, Some(1), "{answer}");
        assert_says(&answer, &["error: ", said]);
    }
}

#[test]
fn check_says_what_fails_without_hairpins() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let check = |more: &[&str]| {
        let options =
            ["check", "--listen", "udp://127.0.0.1:3479", "--user", "u:p", "--datapath", "userspace"];
        let output = turnpike(&[&options[..], &["--admin-socket", socket.to_str().unwrap()], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let warning = "warning  hairpin: calls with both ends on this server fail";
    let (code, text) = check(&["--no-hairpin"]);
    assert_eq!(code, Some(0), "{text}");
    assert_says(&text, &[warning]);
    assert!(!check(&[]).1.contains(warning));
}

#[test]
fn check_refuses_an_admin_socket_that_run_cannot_make() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let below_a_file = file.join("admin.sock");
    let long = directory.path().join("x".repeat(120));
    let impossible = [&file, &below_a_file, &long, Path::new("/proc/no-such-directory/admin.sock")];
    let options = ["--listen", "udp://127.0.0.1:3479", "--user", "u:p", "--datapath", "userspace"];
    for path in impossible {
        let path = path.to_str().unwrap();
        let run = refusal(&[&["run", "--admin-socket", path][..], &options].concat(), 1);
        assert_says(&run, &["error: admin_socket ", path]);
        let check = turnpike(&[&["check", "--admin-socket", path][..], &options].concat());
        let text = String::from_utf8(check.stdout).unwrap();
        assert_eq!(check.status.code(), Some(1), "{text}");
        assert_says(&text, &[&format!("FAILED   admin_socket {path}: ")]);
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing was made");
}

#[test]
fn the_kernels_answer_is_told_once() {
    let options = ["--listen", "udp://127.0.0.1:3479", "--user", "u:p", "--datapath", "userspace"];
    let socket = ["--admin-socket", "/proc/no-such-directory/admin.sock"];
    let text = refusal(&[&["run"][..], &options, &socket].concat(), 1);
    assert_says(&text, &["error: admin_socket /proc/no-such-directory/admin.sock: ", "--admin-socket"]);
    assert_eq!(text.matches("os error").count(), 1, "{text}");
}

#[test]
fn without_a_daemon_the_socket_and_the_remedy_are_named() {
    for command in ["status", "sessions"] {
        let text = refusal(&[command, "--admin-socket", "/nonexistent/admin.sock"], 1);
        assert_says(
            &text,
            &["no turnpike is running", "/nonexistent/admin.sock", "turnpike run", "--admin-socket"],
        );
    }
}

#[test]
fn output_that_nobody_reads_is_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = ["--listen", "udp://127.0.0.1:3479", "--user", "u:p", "--datapath", "userspace"];
    let check = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
        let child = command
            .arg("check")
            .args(listen)
            .arg("--admin-socket")
            .arg(&socket)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn();
        let output = child.unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(check(writer.into()), (Some(0), String::new()), "as in `turnpike check | head -1`");

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (code, text) = check(full.into());
    assert_eq!(code, Some(1), "{text}");
    assert_says(&text, &["error: standard output: No space left on device"]);
}

#[test]
fn help_and_version_are_there() {
    for command in [&["--help"][..], &["run", "--help"]] {
        let help = String::from_utf8(turnpike(command).stdout).unwrap();
        assert_says(&help, &["Usage: turnpike", "Examples:", "turnpike run -i eth0 --user alice:SECRET"]);
    }
    let version = String::from_utf8(turnpike(&["--version"]).stdout).unwrap();
    assert_eq!(version, format!("turnpike {}\n", env!("CARGO_PKG_VERSION")));
}
