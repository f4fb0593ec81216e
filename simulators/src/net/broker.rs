//! A small MQTT 5 broker for demonstrations, in its own process. It keeps nothing on disk: when it dies, what it had taken over
//! and not yet delivered is lost, which is just what a site has to survive.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Serves MQTT 5 on `listen` until the process ends.
///
/// # Errors
/// If the address cannot be used or the broker stops, in words.
pub fn serve(listen: SocketAddr) -> Result<(), String> {
    // rumqttd only logs a failed bind and ends quietly; try it first, so that the reason can be told.
    drop(std::net::TcpListener::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?);
    // Sizes: a site's events are about 1 kB; 100 in flight is the window of the daemon; 2 x 1 MB of log per topic.
    let text = format!(
        r#"
        id = 0
        [router]
        max_connections = 64
        max_outgoing_packet_count = 200
        max_segment_size = 1048576
        max_segment_count = 10
        [v5.1]
        name = "v5"
        listen = "{listen}"
        next_connection_delay_ms = 1
        [v5.1.connections]
        connection_timeout_ms = 5000
        max_payload_size = 1048576
        max_inflight_count = 100
        "#
    );
    let config: rumqttd::Config = toml::from_str(&text).map_err(|error| error.to_string())?;
    rumqttd::Broker::new(config).start().map_err(|error| error.to_string())?;
    Err(format!("the broker on {listen} has stopped"))
}

/// Whether something accepts connections at `address`.
#[must_use]
pub fn answers(address: SocketAddr) -> bool {
    // Loopback answers or refuses at once; the limit is for a machine that is out of breath.
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}
