//! The realm, and who may allocate.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    super::{AuthSecret, Given, Note, Origin, Realm, User},
    Resolver,
};

const FILE: &str = "auth_secret_file";

impl Resolver<'_> {
    pub(super) fn realm(&mut self, realm: Option<Given<Realm>>) -> String {
        if let Some(realm) = realm {
            return realm.value.0;
        }
        match self.host.name.parse::<Realm>() {
            Ok(realm) => {
                self.default_taken("realm", [realm.0.as_str()]);
                realm.0
            }
            Err(error) => {
                let problem = format!("the host name cannot be the realm: {error}; name one with --realm");
                self.refuse(Origin::Default, "realm", Some(self.host.name.clone()), problem);
                String::new()
            }
        }
    }

    pub(super) fn users(&mut self, users: Vec<Given<User>>, secrets: &[AuthSecret]) -> Vec<User> {
        if users.is_empty() && secrets.is_empty() && self.errors.iter().all(|error| error.key != FILE) {
            self.refuse(
                Origin::Default,
                "users",
                None,
                "no credentials, so nobody could be served: give one with --user NAME:PASSWORD, or write \
                 NAME = \"PASSWORD\" into the [users] table of the configuration (`openssl rand -hex 16` makes a \
                 password), or share a secret with the application by --auth-secret-file",
            );
        }
        let mut names = HashSet::new();
        for Given { value, origin } in &users {
            if !names.insert(&value.name) {
                let problem = "this user is there twice: remove one of them";
                self.refuse(origin.clone(), "users", Some(value.name.clone()), problem);
            }
        }
        self.warn_of_readers(users.iter().map(|user| &user.origin));
        users.into_iter().map(|user| user.value).collect()
    }

    /// The secrets that were given, and those in the file.
    pub(super) fn secrets(
        &mut self,
        secrets: Vec<Given<AuthSecret>>,
        file: Option<Given<PathBuf>>,
    ) -> Vec<AuthSecret> {
        self.warn_of_readers(secrets.iter().map(|secret| &secret.origin));
        let mut secrets = secrets.into_iter().map(|secret| secret.value).collect::<Vec<_>>();
        if let Some(Given { value: path, origin }) = file {
            let shown = Some(path.display().to_string());
            match read_secrets(&path) {
                Ok(found) => secrets.extend(found),
                Err(problem) => self.refuse(origin, FILE, shown, problem),
            }
            self.warn_if_others_read(&path);
        }
        if secrets.iter().any(AuthSecret::is_weak) {
            self.warn(
                "auth_secret: a secret is shorter than 16 characters, so that any client could find it out by trying: \
                 make one with `openssl rand -hex 32`"
                    .to_owned(),
            );
        }
        secrets
    }

    /// Passwords and secrets stand in these files.
    fn warn_of_readers<'o>(&mut self, origins: impl Iterator<Item = &'o Origin>) {
        let paths = origins.filter_map(|origin| match origin {
            Origin::File { path, .. } => Some(path),
            Origin::Default | Origin::Option => None,
        });
        for path in paths.collect::<BTreeSet<_>>() {
            self.warn_if_others_read(Path::new(&**path));
        }
    }

    fn warn_if_others_read(&mut self, path: &Path) {
        // What cannot be looked at has been told already, or is gone since it was read.
        let Ok(metadata) = fs::metadata(path) else { return };
        if metadata.is_file() && metadata.mode() & 0o004 != 0 {
            let path = path.display();
            let text =
                format!("{path} holds secrets and can be read by every user of this host: `chmod o= {path}`");
            if !self.notes.contains(&Note::Warning(text.clone())) {
                self.warn(text);
            }
        }
    }
}

/// One secret a line, at least one; empty lines are none. Otherwise what is wrong.
fn read_secrets(path: &Path) -> Result<Vec<AuthSecret>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Some editors begin a text with a byte order mark, which no client's secret has.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let secrets = lines.map(|(number, line)| {
        line.parse::<AuthSecret>().map_err(|error| format!("line {}: {error}", number + 1))
    });
    let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    if secrets.is_empty() {
        return Err(format!("there is no secret in it: `openssl rand -hex 32 > {}`", path.display()));
    }
    Ok(secrets)
}
