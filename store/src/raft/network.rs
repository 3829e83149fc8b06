//! The network of a cluster of one: there is no one to talk to, and every attempt says so.

use super::{Node, TypeConfig, Vote};
use crate::state_file::Image;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use std::future::Future;

/// Makes connections that refuse every call.
pub(crate) struct NoNetwork;

/// A connection to a member that this build cannot reach.
pub(crate) struct Refused {
    target: u64,
    addr: String,
}

impl Refused {
    fn error(&self) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!(
            "member {} at {:?}: this server runs as a cluster of one and has no connections to others",
            self.target, self.addr
        ))
    }
}

impl openraft::RaftNetworkFactory<TypeConfig> for NoNetwork {
    type Network = Refused;

    async fn new_client(&mut self, target: u64, node: &Node) -> Refused {
        Refused { target, addr: node.addr.clone() }
    }
}

impl openraft::RaftNetworkV2<TypeConfig> for Refused {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.error().into())
    }

    async fn vote(&mut self, _rpc: VoteRequest<TypeConfig>, _option: RPCOption) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.error().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: SnapshotOf<TypeConfig, Image>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(self.error().into())
    }
}
