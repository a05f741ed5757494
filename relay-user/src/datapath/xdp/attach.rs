//! Attaching the program: on all interfaces in one mode, or on none.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkXdp};

use super::{
    super::{AttachedInterface, DatapathMode, open::Target},
    sys,
};

/// The program's attachment to one interface. Dropping it detaches, unless it is pinned.
pub(super) struct Attachment {
    pub(super) interface: AttachedInterface,
    pub(super) link: OwnedFd,
}

/// Attaches the program to all targets.
///
/// # Errors
/// Why not, naming the interface; it is then attached to none.
pub(super) fn attach_all(
    program: impl AsFd,
    targets: &[Target],
    mode: DatapathMode,
) -> Result<Vec<Attachment>, String> {
    let flags = match mode {
        DatapathMode::XdpGeneric => sys::XDP_FLAGS_SKB_MODE,
        _ => sys::XDP_FLAGS_DRV_MODE,
    };
    let mut attachments = Vec::new();
    for Target { name, ifindex } in targets {
        match sys::xdp_link_create(&program, *ifindex, flags) {
            Ok(link) => attachments.push(Attachment {
                interface: AttachedInterface { name: name.clone(), ifindex: *ifindex, mode },
                link,
            }),
            Err(error) => {
                detach_all(&attachments);
                return Err(explain(name, mode, &error));
            }
        }
    }
    Ok(attachments)
}

/// Detaches now, pinned or not.
pub(super) fn detach_all(attachments: &[Attachment]) {
    for Attachment { interface, link } in attachments {
        match sys::link_detach(link) {
            // The interface is gone, and with it the attachment.
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                tracing::error!("cannot detach the XDP program from {}: {error}", interface.name);
            }
            _ => {}
        }
    }
}

/// The XDP programs that the targets already have, in words. They are left alone.
pub(super) async fn occupied(targets: &[Target]) -> io::Result<Vec<String>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut found = Vec::new();
    for Target { name, ifindex } in targets {
        let mut links = handle.link().get().match_index(*ifindex).execute();
        let link = links.try_next().await.map_err(io::Error::other)?;
        for id in link.iter().flat_map(|link| program_ids(&link.attributes)) {
            found.push(format!(
                "{name} already has XDP program {} (id {id}), which is left alone",
                name_of(id)
            ));
        }
    }
    connection.abort();
    Ok(found)
}

fn program_ids(attributes: &[LinkAttribute]) -> Vec<u32> {
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp.as_slice()),
        _ => None,
    });
    let mut ids: Vec<u32> = xdp
        .unwrap_or_default()
        .iter()
        .filter_map(|xdp| match xdp {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id).filter(|id| *id != 0)
            }
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn name_of(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(|name| format!("{name:?}")))
        .unwrap_or_else(|| "of unknown name".to_owned())
}

fn explain(name: &str, mode: DatapathMode, error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "its driver has none".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program was attached meanwhile".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "CAP_NET_ADMIN and CAP_BPF are needed".to_owned(),
        Some(libc::ENODEV) => "the interface is gone".to_owned(),
        _ => format!("the kernel or the driver refused ({error}); a smaller MTU or more queues may help"),
    };
    let kind = if mode == DatapathMode::XdpGeneric { "generic" } else { "native" };
    format!("no {kind} XDP on {name}: {cause}")
}
