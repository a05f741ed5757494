//! A call between two browsers: the client's media is relayed; the peer is reached directly, or relayed as well.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;

use super::Browser;
use crate::lab::{Lab, Namespace};
use crate::workspace;

/// A call to be made in a lab.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// The relay's listener.
    pub server: SocketAddr,
    /// The user of the relay, and the password.
    pub credentials: (&'a str, &'a str),
    /// The browser whose media is relayed.
    pub client: &'a Browser,
    /// The other one.
    pub peer: &'a Browser,
    /// Whether the peer's media is relayed, too.
    pub peer_is_relayed: bool,
    /// How long media is to flow, in seconds.
    pub seconds: u64,
    /// A directory for what is needed to start them.
    pub artifacts: &'a Path,
}

impl Call<'_> {
    /// The command that makes the call and prints a [`Report`] at its end. Driver and client run in the client's
    /// namespace, the peer in its own.
    pub fn command(&self) -> anyhow::Result<Command> {
        let peer = Browser { path: self.peer_launcher()?, ..*self.peer };
        let (username, credential) = self.credentials;
        let arguments = json!({
            "client": self.client,
            "peer": peer,
            "peerIsRelayed": self.peer_is_relayed,
            "iceServer": {
                "urls": format!("turn:{}", self.server),
                "username": username,
                "credential": credential,
            },
            "seconds": self.seconds,
        });
        let mut driver = self.lab.client().command("node");
        driver.arg(workspace::browser_dir().join("call.mjs")).arg(arguments.to_string()).stdin(Stdio::null());
        Ok(driver)
    }

    /// A script that starts the peer's browser in its namespace: the drivers start programs by their path.
    fn peer_launcher(&self) -> anyhow::Result<PathBuf> {
        let (namespace, browser): (&Namespace, _) = (self.lab.peer(), self.peer.path.display());
        let path = self.artifacts.join("peer-browser");
        let script =
            format!("#!/bin/sh\nexec nsenter --net=/run/netns/{} {browser} \"$@\"\n", namespace.name());
        std::fs::write(&path, script).with_context(|| format!("could not write {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path)
    }
}

/// What both browsers say of their call.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The browser whose media is relayed.
    pub client: Side,
    /// The other one.
    pub peer: Side,
}

impl Report {
    /// Reads what the command printed.
    pub fn parse(output: &str) -> anyhow::Result<Self> {
        serde_json::from_str(output).with_context(|| format!("unexpected report of a call: {output}"))
    }
}

/// What one browser says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// `relay`, or another type of candidate.
    pub local_candidate_type: String,
    /// The transport to the relay.
    pub relay_protocol: Option<String>,
    /// As the local one.
    pub remote_candidate_type: String,
    /// The media that came in.
    pub inbound: Vec<Inbound>,
    /// The same, when ICE and DTLS were done.
    pub inbound_at_start: Vec<Inbound>,
}

/// An `inbound-rtp` report.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// `audio` or `video`.
    pub kind: String,
    /// RTP packets.
    pub packets_received: i64,
    /// Can be negative: duplicates count against it.
    pub packets_lost: i64,
    /// Video frames, where it is video.
    pub frames_decoded: Option<u64>,
}
