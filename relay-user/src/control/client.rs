//! Asks a running daemon through its admin socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

/// How long a daemon may take to answer. A busy one answers between two batches of datagrams.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no turnpike is running with the admin socket {}: start it with `turnpike run`, or name its socket \
             with --admin-socket", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's mode forbids it.
    #[error("the admin socket {} is not open to this user: run the command as root or as a member of the \
             socket's group", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed otherwise.
    #[error("the admin socket {}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// It accepted the connection and said nothing.
    #[error("the daemon at the admin socket {} did not answer within {} seconds: is the process stopped?",
        path.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// What listens there does not speak the API.
    #[error("the daemon at the admin socket {} gave no usable answer ({cause}): is it another version?",
        path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        cause: String,
    },
}

/// The answer to `GET target`, as text that is known to be a `T`, and as that `T`.
pub async fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<(String, T), ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|cause| {
        let path = socket.to_owned();
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { path },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path },
            _ => ClientError::Io { path, cause },
        }
    })?;
    let unusable = |cause: String| ClientError::Answer { path: socket.to_owned(), cause };

    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unusable(error.to_string()))?;
    let exchange = async move {
        let request = Request::get(target).header(HOST, "turnpike").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body))
    };
    let both = async { tokio::join!(exchange, connection).0 };
    let answer =
        timeout(PATIENCE, both).await.map_err(|_| ClientError::Silent { path: socket.to_owned() })?;
    let (status, body) = answer.map_err(|error| unusable(error.to_string()))?;
    if status != StatusCode::OK {
        return Err(unusable(status.to_string()));
    }
    let text = String::from_utf8(body.into()).map_err(|error| unusable(error.to_string()))?;
    let parsed = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    Ok((text, parsed))
}
