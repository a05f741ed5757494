//! ChannelData: what is read lies in the datagram, and is written again as it was.

use relay_user::turn::channel_data::ChannelData;

pub fn check(datagram: &[u8]) {
    if let Ok(message) = ChannelData::parse(datagram) {
        let written = message.to_datagram();
        assert!(datagram.starts_with(&written), "what follows is padding");
        assert_eq!(ChannelData::parse(&written), Ok(message));
    }
}
