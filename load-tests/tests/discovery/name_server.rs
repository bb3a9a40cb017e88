//! A name server on loopback, over UDP: it knows one name at a time by heart, and can fail.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

/// What it says about every name.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// These addresses.
    Leads(Vec<IpAddr>),
    /// There is no such name.
    Nothing,
    /// It cannot answer.
    Fails,
    /// No word.
    Silence,
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    says: Arc<Mutex<Says>>,
}

impl NameServer {
    pub(crate) async fn start(addresses: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let says = Arc::new(Mutex::new(leads(addresses)));
        tokio::spawn(serve(socket, says.clone()));
        Self { address, says }
    }

    pub(crate) fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub(crate) fn leads_to(&self, addresses: &[&str]) {
        self.says(leads(addresses));
    }
}

fn leads(addresses: &[&str]) -> Says {
    Says::Leads(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

async fn serve(socket: UdpSocket, says: Arc<Mutex<Says>>) {
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(asked) = Message::from_vec(&buffer[..length]) else { continue };
        let says = says.lock().unwrap().clone();
        if let Some(answer) = answer(&asked, says) {
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }
}

fn answer(asked: &Message, says: Says) -> Option<Message> {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.add_queries(asked.queries.clone());
    let query = asked.queries.first()?;
    match says {
        Says::Leads(addresses) => {
            let of_type = |address: &IpAddr| address.is_ipv4() == (query.query_type == RecordType::A);
            let record = |address| Record::from_rdata(query.name.clone(), 30, RData::from(address));
            answer.add_answers(addresses.into_iter().filter(of_type).map(record));
        }
        Says::Nothing => answer.metadata.response_code = ResponseCode::NXDomain,
        Says::Fails => answer.metadata.response_code = ResponseCode::ServFail,
        Says::Silence => return None,
    }
    Some(answer)
}
