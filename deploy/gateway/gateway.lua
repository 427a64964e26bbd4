-- What Envoy's settings cannot express: which request id is used, at most one Authorization and Host header, no dot
-- segments in a path, and CORS headers on the gateway's own responses.

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

-- The status that refuses the path, or nil. A client resolves dot segments itself (RFC 3986 section 5.2.4), and none
-- escapes a dot. PostgreSQL cannot store NUL.
local function refusal(path)
  path = string.match(path, "^[^?]*")
  if string.find(path, "%%2[eE]") or string.find(path, "%00", 1, true) then
    return "400"
  end
  if string.find(path .. "/", "/%.%.?/") then
    return "404"
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(":method") == "CONNECT" then  -- has no path that a route could match, and a body without an end
    handle:respond({[":status"] = "405"}, "")
    return
  end
  local offered = headers:get(HEADER_OFFERED)
  headers:remove(HEADER_OFFERED)
  if well_formed(offered) then
    headers:replace("x-request-id", offered)
  end
  local status = refusal(headers:get(":path") or "")
  if status then
    handle:respond({[":status"] = status}, "")
    return
  end
  handle:streamInfo():dynamicMetadata():set(METADATA, "origin", headers:get("origin") or "")
  -- Envoy joins repeated headers with a comma; a single one contains none (RFC 7617, RFC 6750).
  for _, name in ipairs({"authorization", ":authority"}) do
    if string.find(headers:get(name) or "", ",", 1, true) then
      handle:respond({[":status"] = "400"}, "")
      return
    end
  end
end

-- A request that Envoy refuses while parsing it (such as for a NUL in its path) has no request id yet, and often no
-- path.
local refused = 0
local function complete_refusal(handle)
  refused = refused + 1
  local id = handle:timestampString(EnvoyTimestampResolution.MICROSECOND) .. "-" .. refused
  handle:headers():replace("x-request-id", id)
  local body = handle:body()
  if body ~= nil then
    local text = string.gsub(body:getBytes(0, body:length()), '"request_id":null', '"request_id":"' .. id .. '"')
    text = string.gsub(text, '"instance":null', '"instance":""')
    handle:headers():replace("content-length", body:setBytes(text))
  end
end

-- A service sets its own CORS headers; this adds them to responses without any.
local function add_cors(handle, origin)
  local headers = handle:headers()
  if headers:get("access-control-allow-origin") ~= nil then
    return
  end
  if origins[origin] then
    headers:add("access-control-allow-origin", origin)
    headers:add("access-control-expose-headers", "X-Request-ID, Retry-After")
  end
  local vary = headers:get("vary")
  if vary == nil or not string.find(string.lower(vary), "origin", 1, true) then
    headers:add("vary", "Origin")
  end
end

function envoy_on_response(handle)
  local known = handle:streamInfo():dynamicMetadata():get(METADATA)
  if cors then
    add_cors(handle, known and known["origin"] or "")
  end
  if known == nil then
    complete_refusal(handle)
  end
end
