//! `/oauth2/token`, and the discovery document and key set of `DT-Asymmetric-Signature`.

use http::Method;

use super::{Answered, ApiError, Call};
use crate::cloud::Cloud;
use crate::identity::{TokenError, exchange};

pub fn token(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    available(cloud)?;
    let answer =
        exchange(&call.body, call.host(), &cloud.accounts, &mut cloud.grants.lock(), cloud.wall_seconds());
    // DT's Python client recognises a bad assertion by the status 400.
    let rejection = |error: TokenError| ApiError {
        oauth: Some(error.oauth_code()),
        ..ApiError::bad_request(error.to_string())
    };
    answer.map(Into::into).map_err(rejection)
}

pub fn discovery(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    available(cloud)?;
    Ok(cloud.keys.lock().discovery().into())
}

pub fn jwks(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    available(cloud)?;
    Ok(cloud.keys.lock().jwks().into())
}

fn available(cloud: &Cloud) -> Result<(), ApiError> {
    if cloud.with_state(|state, _| state.faults.identity_outage) {
        return Err(ApiError::unavailable("an outage, emulated by the fault identity-outage"));
    }
    Ok(())
}
