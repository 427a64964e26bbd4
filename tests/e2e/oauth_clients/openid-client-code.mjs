// openid-client's whole code flow, as in its manual: PKCE, ID token, UserInfo, refresh, sign-out. Prints the results.
import * as oauth from "openid-client";
import { visit } from "./person.mjs";

const { issuer, clientId, clientSecret, redirectUri, afterSignOut, username, password } = JSON.parse(process.env.GIVEN);
const execute = [oauth.allowInsecureRequests]; // plain http on the loopback address
const config = await oauth.discovery(new URL(issuer), clientId, clientSecret || undefined,
  clientSecret ? undefined : oauth.None(), { execute });
const verifier = oauth.randomPKCECodeVerifier();
const [state, nonce] = [oauth.randomState(), oauth.randomNonce()];
const url = oauth.buildAuthorizationUrl(config, {
  redirect_uri: redirectUri,
  scope: "openid profile email orders:read",
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state,
  nonce,
});
const back = await visit(url, issuer, { username, password });
const tokens = await oauth.authorizationCodeGrant(config, back, {
  pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 60,
});
const claims = tokens.claims();
const userinfo = await oauth.fetchUserInfo(config, tokens.access_token, claims.sub);
const refreshed = await oauth.refreshTokenGrant(config, tokens.refresh_token);
const leaving = oauth.buildEndSessionUrl(config, {
  id_token_hint: refreshed.id_token, post_logout_redirect_uri: afterSignOut, state: "bye",
});
const left = await visit(leaving, issuer, {});
const afterwards = await oauth.refreshTokenGrant(config, refreshed.refresh_token).catch((error) => error.error);
console.log(JSON.stringify({ claims, userinfo, refreshed: refreshed.claims(), left, afterwards }));
