//! `/oauth2/token`, and what verifiers of `DT-Asymmetric-Signature` ask for: discovery and key set.

use http::Method;

use super::{Answered, ApiError, Call};
use crate::cloud::Cloud;
use crate::identity::{Refused, exchange};

pub(super) fn token(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    available(cloud)?;
    let answer =
        exchange(&call.body, call.host(), &cloud.accounts, &mut cloud.grants.lock(), cloud.wall_seconds());
    // DT's Python client knows a bad assertion by the status 400.
    let refused = |Refused(oauth, text)| ApiError { oauth: Some(oauth), ..ApiError::bad_request(text) };
    answer.map(Into::into).map_err(refused)
}

pub(super) fn discovery(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    available(cloud)?;
    Ok(cloud.keys.lock().discovery().into())
}

pub(super) fn jwks(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    available(cloud)?;
    Ok(cloud.keys.lock().jwks().into())
}

fn available(cloud: &Cloud) -> Result<(), ApiError> {
    if cloud.with_state(|state, _| state.faults.identity_outage) {
        return Err(ApiError::unavailable("an outage, asked for by the fault identity-outage"));
    }
    Ok(())
}
