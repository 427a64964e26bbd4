// Everything that openid-client can do here, as in its manual. Prints the results as JSON.
import * as oauth from "openid-client";

const { issuer, clientId, clientSecret, username, password } = JSON.parse(process.env.GIVEN);
const options = { algorithm: "oauth2", execute: [oauth.allowInsecureRequests] }; // plain http on the loopback address
const service = await oauth.discovery(new URL(issuer), clientId, clientSecret, undefined, options);
const posting = await oauth.discovery(new URL(issuer), clientId, undefined, oauth.ClientSecretPost(clientSecret), options);
const app = await oauth.discovery(new URL(issuer), "web", undefined, oauth.None(), options);
const seen = { metadata: service.serverMetadata() };

seen.own = await oauth.clientCredentialsGrant(service, { scope: "orders:read" });
seen.ownByPost = await oauth.clientCredentialsGrant(posting, { scope: "orders:read" });
seen.ownIntrospected = await oauth.tokenIntrospection(service, seen.own.access_token);

seen.person = await oauth.genericGrantRequest(app, "password", { username, password });
seen.refreshed = await oauth.refreshTokenGrant(app, seen.person.refresh_token);
const me = await oauth.fetchProtectedResource(app, seen.refreshed.access_token, new URL("/me", issuer), "GET");
seen.me = await me.json();

await oauth.tokenRevocation(service, seen.own.access_token);
seen.ownRevoked = await oauth.tokenIntrospection(service, seen.own.access_token);
await oauth.tokenRevocation(app, seen.refreshed.refresh_token);
seen.afterRevocation = await oauth.refreshTokenGrant(app, seen.refreshed.refresh_token).catch((error) => error.error);

console.log(JSON.stringify(seen));
