//! The admin API: HTTP on a unix socket. It asks the driver, which owns everything, through a channel.

use std::{
    fs, io,
    os::unix::{
        fs::FileTypeExt,
        net::{SocketAddr, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::{Mode, umask},
        statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs},
    },
    unistd::{AccessFlags, faccessat},
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::status::{Sessions, Status};

/// A question to the driver.
#[derive(Debug)]
pub enum Query {
    /// Whether the driver answers at all.
    Health(oneshot::Sender<()>),
    /// What `status` shows.
    Status(oneshot::Sender<Status>),
    /// What `sessions` shows.
    Sessions(oneshot::Sender<Sessions>),
}

/// Connections that are served at once, so that their open files stay few. Others wait.
const CONNECTIONS: usize = 16;

/// How long a connection may last: half a request must not keep others waiting for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait where a connection cannot be accepted, as when open files run out.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers requests until the process ends. `queries` leads to the driver.
pub async fn serve(socket: UnixListener, queries: mpsc::Sender<Query>) {
    serve_each(socket, queries, PATIENCE).await;
}

async fn serve_each(socket: UnixListener, queries: mpsc::Sender<Query>, patience: Duration) {
    let api = Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/sessions", get(sessions))
        .route("/healthz", get(healthz))
        .with_state(queries);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = socket.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(api.clone()));
        tokio::spawn(async move {
            // What goes wrong is the asker's to tell.
            let _ = timeout(patience, connection).await;
            drop(place);
        });
    }
}

async fn status(State(queries): State<mpsc::Sender<Query>>) -> Response {
    ask(&queries, Query::Status).await.map_or_else(unavailable, |status| Json(status).into_response())
}

async fn sessions(State(queries): State<mpsc::Sender<Query>>) -> Response {
    ask(&queries, Query::Sessions).await.map_or_else(unavailable, |sessions| Json(sessions).into_response())
}

/// Healthy is a driver that answers.
async fn healthz(State(queries): State<mpsc::Sender<Query>>) -> Response {
    ask(&queries, Query::Health).await.map_or_else(unavailable, |()| "ok\n".into_response())
}

async fn ask<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    queries.send(query(answer)).await.ok()?;
    answered.await.ok()
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "turnpike is stopping\n").into_response()
}

/// The socket file of this daemon, removed when dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
}

/// Why the admin API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another daemon listens there.
    #[error(
        "turnpike is already running (pid {pid}) with the admin socket {}: stop it, or give this one a socket of \
         its own (--admin-socket)", path.display()
    )]
    AlreadyRunning {
        /// Its process id.
        pid: i32,
        /// The socket.
        path: PathBuf,
    },
    /// The path is taken by a file that no daemon made.
    #[error("admin_socket {}: the file exists and is no socket: remove it or name another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("admin_socket {}: {action}: {cause}; name a path that this user may write to (--admin-socket)",
        path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
}

impl AdminSocket {
    /// Listens on `path` with mode 0660, and makes its directory if it is missing. The socket file of a
    /// daemon that is dead is replaced.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), AdminSocketError> {
        let failed = |action| move |cause| AdminSocketError::Io { path: path.to_owned(), action, cause };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("its directory cannot be made"))?;
        }
        remove_stale(path)?;
        // The mode must be right from the first moment on, so a chmod afterwards will not do.
        let previous = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(path);
        umask(previous);
        let listener = listener.map_err(failed("cannot be bound"))?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

/// What [`AdminSocket::bind`] would find, changing nothing. `Ok` is a path that it can take, as far as can be told.
pub fn check(path: &Path) -> Result<(), AdminSocketError> {
    let failed = |action| move |cause| AdminSocketError::Io { path: path.to_owned(), action, cause };
    // A path may be too long for a socket.
    SocketAddr::from_pathname(path).map_err(failed("cannot be bound"))?;
    inspect(path)?;
    // Missing directories are made.
    let directories = path
        .ancestors()
        .skip(1)
        .map(|directory| if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
    for directory in directories {
        match fs::metadata(directory) {
            Ok(_) => return check_directory(directory).map_err(failed("cannot be made in its directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("its directory cannot be looked at")(error)),
        }
    }
    Ok(())
}

/// Whether this process can make files in a directory.
fn check_directory(directory: &Path) -> io::Result<()> {
    if !fs::metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    faccessat(AT_FDCWD, directory, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    // Here root has access, and still nobody can make a file.
    let kind = statfs(directory)?.filesystem_type();
    if kind == PROC_SUPER_MAGIC || kind == SYSFS_MAGIC {
        return Err(io::Error::other("no files can be made in this file system"));
    }
    Ok(())
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("admin_socket {}: cannot be removed: {error}", self.path.display());
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), AdminSocketError> {
    if inspect(path)? == Existing::Stale {
        tracing::info!("removing the admin socket of a daemon that is gone: {}", path.display());
        fs::remove_file(path).map_err(|cause| AdminSocketError::Io {
            path: path.to_owned(),
            action: "the stale file cannot be removed",
            cause,
        })?;
    }
    Ok(())
}

/// What is at a path that can be taken.
#[derive(PartialEq, Eq)]
enum Existing {
    Nothing,
    /// The socket of a daemon that is gone.
    Stale,
}

fn inspect(path: &Path) -> Result<Existing, AdminSocketError> {
    let failed = |action| move |cause| AdminSocketError::Io { path: path.to_owned(), action, cause };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::Nothing),
        Err(error) => return Err(failed("cannot be looked at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminSocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            // The credentials are those of the process that listens (unix(7), SO_PEERCRED).
            let credentials = getsockopt(&stream, PeerCredentials);
            let pid = credentials.map_or(0, |credentials| credentials.pid());
            Err(AdminSocketError::AlreadyRunning { pid, path: path.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Existing::Stale),
        Err(error) => Err(failed("cannot be connected to")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::client, *};

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/admin.sock");
        {
            let (_socket, _listener) = AdminSocket::bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            let message = AdminSocket::bind(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("already running (pid {})", std::process::id())), "{message}");
        }
        assert!(!path.exists(), "the file goes with the daemon");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as after a crash");
        AdminSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = AdminSocket::bind(file.path()).unwrap_err().to_string();
        assert!(message.contains("is no socket") && message.contains("admin_socket"), "{message}");
        assert!(file.path().exists());
    }

    #[tokio::test]
    async fn half_requests_lock_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (_socket, listener) = AdminSocket::bind(&path).unwrap();
        let (queries, mut asked) = mpsc::channel(1);
        tokio::spawn(serve_each(listener, queries, Duration::from_millis(1)));
        tokio::spawn(async move {
            while let Some(query) = asked.recv().await {
                let Query::Sessions(answer) = query else { panic!("{query:?}") };
                answer.send(Sessions::default()).unwrap();
            }
        });
        let mut stuck = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            let mut stream = UnixStream::connect(&path).unwrap();
            io::Write::write_all(&mut stream, b"GET /api/v1/sess").unwrap();
            stuck.push(stream);
        }
        let (_, sessions) = client::get::<Sessions>(&path, "/api/v1/sessions").await.unwrap();
        assert_eq!(sessions, Sessions::default());
    }
}
