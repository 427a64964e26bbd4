// The low-level client, and its validation of access tokens (RFC 9068) for resource servers. Prints the results as JSON.
import * as oauth from "oauth4webapi";

const { issuer, audience, clientId, clientSecret, username, password, refused } = JSON.parse(process.env.GIVEN);
const options = { [oauth.allowInsecureRequests]: true }; // plain http on the loopback address
const url = new URL(issuer);
const found = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...options });
const server = await oauth.processDiscoveryResponse(url, found);
const client = { client_id: clientId };
const basic = oauth.ClientSecretBasic(clientSecret);

const granted = await oauth.clientCredentialsGrantRequest(server, client, basic, { resource: audience }, options);
const own = await oauth.processClientCredentialsResponse(server, client, granted);
const app = { client_id: "web" };
const signedIn = await oauth.genericTokenEndpointRequest(
  server, app, oauth.None(), "password", { username, password }, options);
const person = await oauth.processGenericTokenEndpointResponse(server, app, signedIn);
const rotated = await oauth.refreshTokenGrantRequest(server, app, oauth.None(), person.refresh_token, options);
const refreshed = await oauth.processRefreshTokenResponse(server, app, rotated);

function request(token) {
  return new Request(new URL("/orders", issuer), { headers: { Authorization: `Bearer ${token}` } });
}
const claims = [];
for (const token of [own.access_token, person.access_token, refreshed.access_token]) {
  claims.push(await oauth.validateJwtAccessToken(server, request(token), audience, options));
}
const refusals = [];
for (const token of refused) {
  refusals.push(await oauth.validateJwtAccessToken(server, request(token), audience, options).then(() => null, (e) => e.code));
}

const inspected = await oauth.introspectionRequest(server, client, basic, own.access_token, options);
const introspection = await oauth.processIntrospectionResponse(server, client, inspected);
const revoked = await oauth.revocationRequest(server, client, basic, own.access_token, options);
await oauth.processRevocationResponse(revoked);
const inspectedAgain = await oauth.introspectionRequest(server, client, basic, own.access_token, options);
const afterRevocation = await oauth.processIntrospectionResponse(server, client, inspectedAgain);

console.log(JSON.stringify({ claims, refusals, introspection, afterRevocation }));
