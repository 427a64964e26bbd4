// oauth4webapi's whole code flow for a public client: PKCE, ID token, UserInfo, refresh. Prints the results as JSON.
import * as oauth from "oauth4webapi";
import { visit } from "./person.mjs";

const { issuer, clientId, redirectUri, username, password } = JSON.parse(process.env.GIVEN);
const options = { [oauth.allowInsecureRequests]: true }; // plain http on the loopback address
const url = new URL(issuer);
const server = await oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, options));
const client = { client_id: clientId };
const verifier = oauth.generateRandomCodeVerifier();
const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()];
const request = new URL(server.authorization_endpoint);
request.search = new URLSearchParams({
  response_type: "code",
  client_id: clientId,
  redirect_uri: redirectUri,
  scope: "openid email",
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state,
  nonce,
});
const back = oauth.validateAuthResponse(server, client, await visit(request, issuer, { username, password }), state);
const granted = await oauth.authorizationCodeGrantRequest(
  server, client, oauth.None(), back, redirectUri, verifier, options);
const checks = { expectedNonce: nonce, requireIdToken: true };
const tokens = await oauth.processAuthorizationCodeResponse(server, client, granted, checks);
await oauth.validateApplicationLevelSignature(server, granted, options);
const claims = oauth.getValidatedIdTokenClaims(tokens);
const info = await oauth.userInfoRequest(server, client, tokens.access_token, options);
const userinfo = await oauth.processUserInfoResponse(server, client, claims.sub, info);
const rotated = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh_token, options);
const refreshed = await oauth.processRefreshTokenResponse(server, client, rotated);
console.log(JSON.stringify({ claims, userinfo, refreshed: Boolean(refreshed.access_token) }));
