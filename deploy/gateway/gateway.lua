-- What Envoy's own settings can't say: whose request id counts, one Authorization header at most,
-- and CORS headers on the answers that the gateway makes itself.

local HEADER_OFFERED = "x-waybill-offered-request-id"
local METADATA = "waybill"

local origins = {}
for origin in string.gmatch(os.getenv("WAYBILL_CORS_ORIGINS") or "", '"([^"]+)"') do
  origins[origin] = true
end
local cors = next(origins) ~= nil

local function well_formed(id)
  return id ~= nil and id ~= "-" and #id <= 128 and string.find(id, "^[%w._-]+$") ~= nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local offered = headers:get(HEADER_OFFERED)
  headers:remove(HEADER_OFFERED)
  if well_formed(offered) then
    headers:replace("x-request-id", offered)
  end
  if cors then
    handle:streamInfo():dynamicMetadata():set(METADATA, "origin", headers:get("origin") or "")
  end
  -- Envoy has joined repeated ones; no single one holds a comma (RFC 7617, RFC 6750).
  if string.find(headers:get("authorization") or "", ",", 1, true) then
    handle:respond({[":status"] = "400"}, "")
  end
end

-- A service answers for itself whether an origin is allowed; here only what it did not answer is completed.
function envoy_on_response(handle)
  if not cors then
    return
  end
  local headers = handle:headers()
  if headers:get("access-control-allow-origin") ~= nil then
    return
  end
  local known = handle:streamInfo():dynamicMetadata():get(METADATA)
  local origin = known and known["origin"]
  if origin and origins[origin] then
    headers:add("access-control-allow-origin", origin)
    headers:add("access-control-expose-headers", "X-Request-ID")
  end
  local vary = headers:get("vary")
  if vary == nil or not string.find(string.lower(vary), "origin", 1, true) then
    headers:add("vary", "Origin")
  end
end
