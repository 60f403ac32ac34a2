//! Four-letter words: the plain-text questions that servers answer on the clients' port.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::WireError;
use crate::limits::ZK_FOUR_LETTER_BYTES_MAX;

/// Asks the server at `addr` (`host:port`) and returns all that it says until it closes the
/// connection. Empty: the server knows no such word, or is shutting down.
///
/// # Errors
/// If it can't be reached, or does not finish within `wait`.
pub async fn four_letter(addr: &str, word: &str, wait: Duration) -> Result<String, WireError> {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        let most = ZK_FOUR_LETTER_BYTES_MAX;
        stream.take(most as u64 + 1).read_to_end(&mut answer).await?;
        if answer.len() > most {
            return Err(WireError::Length { length: i32::MAX, most });
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(wait, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(WireError::Silence(wait.as_millis())),
    }
}
