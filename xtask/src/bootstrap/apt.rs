//! A Debian suite that the system's apt does not know, used without touching the system's configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;

/// The suite with the packages of Rust that match rustup's.
const SUITE: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Private lists and cache of one suite, on the mirror that the system uses.
pub(super) struct PrivateArchive {
    directory: PathBuf,
}

impl PrivateArchive {
    /// Fetches the lists of Debian's backports suite into `directory`.
    pub(super) fn backports(directory: &Path) -> anyhow::Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!(
                "rust-src is missing, and without rustup it can only come from a Debian mirror, whose keyring \
                 {KEYRING} is not here: install the package debian-archive-keyring, or run \
                 `rustup component add rust-src`"
            );
        }
        let mirror = system_mirror()?;
        for subdirectory in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(directory.join(subdirectory))
                .with_context(|| format!("could not create {}", directory.display()))?;
        }
        let directory = directory.canonicalize()?;
        std::fs::write(
            directory.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"),
        )?;
        let archive = Self { directory };
        println!("  from {mirror}, suite {SUITE}");
        process::output(archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// The newest version of `package` that begins with `prefix`.
    pub(super) fn newest(&self, package: &str, prefix: &str) -> anyhow::Result<String> {
        let madison = process::output(self.apt("apt-cache").args(["madison", package]))?;
        // apt lists the newest first.
        let found = versions(&madison).find(|version| version.starts_with(prefix)).map(str::to_owned);
        found.with_context(|| {
            let offered: Vec<_> = versions(&madison).collect();
            format!(
                "{SUITE} has no {package} {prefix}…, only {offered:?}: \
                 run `rustup component add {package}` where rustup may install"
            )
        })
    }

    /// Downloads and unpacks a package, and returns where.
    pub(super) fn unpack(&self, package: &str, version: &str) -> anyhow::Result<PathBuf> {
        process::output(
            self.apt("apt-get")
                .args(["download", &format!("{package}={version}")])
                .current_dir(&self.directory),
        )?;
        let debs = std::fs::read_dir(&self.directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let deb = debs.with_context(|| format!("apt-get downloaded no {package}"))?;
        let tree = self.directory.join("tree");
        process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
        Ok(tree)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, file: &str| format!("{name}={}", self.directory.join(file).display());
        command
            .args(["-o", &option("Dir::Etc::SourceList", "sources.list")])
            .args(["-o", "Dir::Etc::SourceParts=/dev/null"])
            .args(["-o", &option("Dir::State::Lists", "lists")])
            .args(["-o", &option("Dir::Cache", "cache")])
            // The directory may be closed to apt's own user; signatures are checked all the same.
            .args(["-o", "APT::Sandbox::User="])
            .args(["-q", "-q"]);
        command
    }
}

/// The versions in the output of `apt-cache madison`.
fn versions(madison: &str) -> impl Iterator<Item = &str> {
    madison.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim()))
}

/// The mirror that the system's apt uses for its release.
fn system_mirror() -> anyhow::Result<String> {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        bail!(
            "rust-src is missing: run `rustup component add rust-src` (only on Debian can a package stand in)"
        );
    }
    let release = field("VERSION_CODENAME").unwrap_or_default();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = std::fs::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<_> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
        parts.sort();
        files.extend(parts);
    }
    let mirror = files.iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => mirror_in_one_line_format(&text, &release),
            "sources" => mirror_in_deb822_format(&text, &release),
            _ => None,
        }
    });
    mirror.with_context(|| format!("no mirror for {release} in /etc/apt/sources.list or sources.list.d"))
}

/// The URI of the first `deb [options] URI SUITE COMPONENT...` line of this suite (sources.list(5)).
fn mirror_in_one_line_format(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb")?;
        if !rest.starts_with(char::is_whitespace) {
            return None;
        }
        let rest = rest.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        (words.next()? == suite).then(|| uri.to_owned())
    })
}

/// The URI of the first stanza of type `deb` with this suite (sources.list(5)).
fn mirror_in_deb822_format(text: &str, suite: &str) -> Option<String> {
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let words = |field: &str| {
            let mut words = Vec::new();
            let mut inside = false;
            for line in stanza {
                // Lines that begin with a space go on with the field above.
                if !line.starts_with([' ', '\t']) {
                    let Some((name, _)) = line.split_once(':') else { continue };
                    inside = name.eq_ignore_ascii_case(field);
                }
                if inside {
                    let value = if line.starts_with([' ', '\t']) { line } else { line.split_once(':')?.1 };
                    words.extend(value.split_whitespace());
                }
            }
            Some(words)
        };
        let enabled = words("Enabled")?.first().is_none_or(|word| !word.eq_ignore_ascii_case("no"));
        (enabled && words("Types")?.contains(&"deb") && words("Suites")?.contains(&suite))
            .then(|| words("URIs")?.first().map(|uri| (*uri).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_in_one_line_format_is_found() {
        let text = "# deb http://commented.example/debian bookworm main\n\
                    deb-src http://source.example/debian bookworm main\n\
                    deb http://security.example/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/usr/share/k.gpg] http://mirror.example/debian bookworm main # ours\n";
        assert_eq!(
            mirror_in_one_line_format(text, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(mirror_in_one_line_format(text, "trixie"), None);
    }

    #[test]
    fn mirror_in_deb822_format_is_found() {
        let text = "Types: deb\n\
                    URIs: http://security.example/debian-security\n\
                    Suites: bookworm-security\n\
                    \n\
                    Types: deb\n\
                    Enabled: no\n\
                    URIs: http://disabled.example/debian\n\
                    Suites: bookworm\n\
                    \n\
                    # Ours\n\
                    Types: deb deb-src\n\
                    # http://comment.example/debian\n\
                    URIs: mirror+file:/etc/apt/mirrors/debian.list\n\
                    Suites: bookworm-updates\n \
                    bookworm\n\
                    Components: main\n";
        assert_eq!(
            mirror_in_deb822_format(text, "bookworm").as_deref(),
            Some("mirror+file:/etc/apt/mirrors/debian.list")
        );
        assert_eq!(mirror_in_deb822_format(text, "trixie"), None);
    }

    #[test]
    fn versions_are_read_from_madison() {
        let text = "  rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages\n\
                    \x20 rust-src | 1.94.1+dfsg1-1~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages\n";
        assert_eq!(versions(text).collect::<Vec<_>>(), ["1.95.0+dfsg1-2~bpo13+1", "1.94.1+dfsg1-1~bpo13+1"]);
    }
}
