//! The core imports no runtime, no kernel interface, no socket and no clock.

use std::{fs, path::Path};

#[test]
fn turn_has_no_io() {
    const FORBIDDEN: [&str; 12] = [
        "tokio",
        "aya",
        "socket2",
        "UdpSocket",
        "TcpListener",
        "TcpStream",
        "ToSocketAddrs",
        "std::io",
        "std::os",
        "Instant",
        "SystemTime",
        "rand::rng",
    ];
    fn visit(folder: &Path, files: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, files);
                continue;
            }
            *files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in FORBIDDEN {
                    let found = code
                        .match_indices(word)
                        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                    assert!(!found, "{}:{}: {word}", path.display(), number + 1);
                }
            }
        }
    }
    let mut files = 0;
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/turn"), &mut files);
    assert!(files > 20, "the sources were not found");
}
