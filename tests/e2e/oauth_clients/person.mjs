// A person at a browser: follows redirects, signs in and allows what is asked, until the way leads back to the client.
export async function visit(address, issuer, person) {
  const cookies = new Map();
  let url = new URL(address), body;
  for (let steps = 0; steps < 10 && url.origin === issuer; steps++) {
    const headers = { Cookie: [...cookies].map((pair) => pair.join("=")).join("; "), Origin: issuer };
    const response = await fetch(url, { method: body ? "POST" : "GET", headers, body, redirect: "manual" });
    for (const cookie of response.headers.getSetCookie()) {
      cookies.set(...cookie.split(";")[0].split(/=(.*)/s).slice(0, 2));
    }
    body = undefined;
    if (response.headers.has("location")) {
      url = new URL(response.headers.get("location"), url);
      continue;
    }
    const page = await response.text();
    const action = page.match(/<form method="post" action="([^"]+)"/)?.[1];
    if (!action) throw new Error(`no way on from ${response.status} ${page}`);
    body = new URLSearchParams({ form: page.match(/name="form" value="([^"]+)"/)[1] });
    for (const [name, value] of Object.entries(action === "/sign-in" ? person : { decision: "allow" })) {
      body.set(name, value);
    }
    url = new URL(action, url);
  }
  return url;
}
