-- JSON and base64, for the programs that change bodies.

local byte, char, find, format, gsub, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.sub
local concat, sort, floor = table.concat, table.sort, math.floor

local DEEPEST = 100       -- of JSON

-- JSON: objects are tables, arrays tables of this class; numbers that Lua would change keep their text

local Array, Exact, NULL = {}, {}, {}

local function array(values) return setmetatable(values, Array) end
local function is_array(value) return getmetatable(value) == Array end
local function is_exact(value) return getmetatable(value) == Exact end
local function is_object(value)
  return type(value) == "table" and value ~= NULL and not is_array(value) and not is_exact(value)
end

local function utf8_of(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64,
    0x80 + code % 64)
end

local function shown_number(n)
  if n == floor(n) and n > -1e15 and n < 1e15 then return format("%.0f", n) end
  for digits = 15, 17 do
    local text = format("%." .. digits .. "g", n)
    if tonumber(text) == n then return text end
  end
end

local UNESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local WORDS = { ["true"] = true, ["false"] = false, ["null"] = NULL }

local function decode(text, deepest)
  local at, value = 1

  local function skip() at = find(text, "[^ \t\r\n]", at) or #text + 1 end

  local function hex4()
    local digits = text:match("^%x%x%x%x", at)
    if not digits then error("JSON: a bad \\u", 0) end
    at = at + 4
    return tonumber(digits, 16)
  end

  local function text_value()
    at = at + 1
    local parts = {}
    while true do
      local stop = find(text, '[%z\1-\31"\\]', at)
      if not stop then error("JSON: a text without its end", 0) end
      parts[#parts + 1] = sub(text, at, stop - 1)
      local what = sub(text, stop, stop)
      at = stop + 1
      if what == '"' then return #parts == 1 and parts[1] or concat(parts) end
      if what ~= "\\" then error("JSON: a control character", 0) end
      local escape = sub(text, at, at)
      at = at + 1
      if escape == "u" then
        local code = hex4()
        if code >= 0xD800 and code < 0xDC00 then
          if sub(text, at, at + 1) ~= "\\u" then error("JSON: half a character", 0) end
          at = at + 2
          local low = hex4()
          if low < 0xDC00 or low > 0xDFFF then error("JSON: half a character", 0) end
          code = 0x10000 + (code - 0xD800) * 1024 + low - 0xDC00
        elseif code >= 0xDC00 and code < 0xE000 then
          error("JSON: half a character", 0)
        end
        parts[#parts + 1] = utf8_of(code)
      else
        parts[#parts + 1] = UNESCAPED[escape] or error("JSON: a bad escape", 0)
      end
    end
  end

  local function number_value()
    local from, to = find(text, "^-?%d+", at)
    if not from or find(text, "^-?0%d", at) then error("JSON: no value", 0) end
    local _, fraction = find(text, "^%.%d+", to + 1)
    to = fraction or to
    local _, exponent = find(text, "^[eE][+-]?%d+", to + 1)
    to = exponent or to
    local raw = sub(text, at, to)
    at = to + 1
    local n = tonumber(raw)
    if n ~= n or n == 1 / 0 or n == -1 / 0 then error("JSON: a number too large", 0) end
    if shown_number(n) == raw then return n end
    return setmetatable({ text = raw, value = n }, Exact)
  end

  local function members(depth, closing, read)
    if depth > (deepest or DEEPEST) then error("JSON: nested too deeply", 0) end
    at = at + 1
    skip()
    if sub(text, at, at) == closing then at = at + 1 return end
    while true do
      read(depth + 1)
      skip()
      local sign = sub(text, at, at)
      at = at + 1
      if sign == closing then return end
      if sign ~= "," then error("JSON: no , or " .. closing, 0) end
      skip()
    end
  end

  function value(depth)
    skip()
    local first = sub(text, at, at)
    if first == '"' then return text_value() end
    if first == "{" then
      local object = {}
      members(depth, "}", function(deeper)
        if sub(text, at, at) ~= '"' then error("JSON: no name", 0) end
        local key = text_value()
        skip()
        if sub(text, at, at) ~= ":" then error("JSON: no :", 0) end
        at = at + 1
        object[key] = value(deeper)
      end)
      return object
    end
    if first == "[" then
      local list = array({})
      members(depth, "]", function(deeper) list[#list + 1] = value(deeper) end)
      return list
    end
    local word = text:match("^%l+", at)
    if word and WORDS[word] ~= nil then
      at = at + #word
      return WORDS[word]
    end
    return number_value()
  end

  local found = value(1)
  skip()
  if at <= #text then error("JSON: more than one value", 0) end
  return found
end

local ESCAPED = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t" }

local function escaped(text)
  return (gsub(text, '[%z\1-\31"\\]', function(c) return ESCAPED[c] or format("\\u%04x", byte(c)) end))
end

local function sorted_keys(object)
  local keys = {}
  for key in pairs(object) do keys[#keys + 1] = key end
  sort(keys)
  return keys
end

local function encode(value)
  local kind = type(value)
  if kind == "string" then return '"' .. escaped(value) .. '"' end
  if kind == "number" then return shown_number(value) or "null" end
  if kind == "boolean" then return tostring(value) end
  if value == NULL then return "null" end
  if is_exact(value) then return value.text end
  local parts = {}
  if is_array(value) then
    for i = 1, #value do parts[i] = encode(value[i]) end
    return "[" .. concat(parts, ",") .. "]"
  end
  for i, key in ipairs(sorted_keys(value)) do
    parts[i] = '"' .. escaped(key) .. '":' .. encode(value[key])
  end
  return "{" .. concat(parts, ",") .. "}"
end

-- Base64

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local CODES = {}
for i = 1, 64 do CODES[byte(DIGITS, i)] = i - 1 end

local function to_base64(text)
  local function digit(n) return sub(DIGITS, n % 64 + 1, n % 64 + 1) end
  return (gsub(text, "..?.?", function(group)
    local a, b, c = byte(group, 1, 3)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    return digit(floor(n / 262144)) .. digit(floor(n / 4096)) .. (b and digit(floor(n / 64)) or "=")
      .. (c and digit(n) or "=")
  end))
end

local function from_base64(text)
  local digits = gsub(text, "==?$", "")
  if #text % 4 ~= 0 or find(digits, "[^%w+/]") or #digits % 4 == 1 then return "" end
  return (gsub(digits, "..?.?.?", function(group)
    local a, b, c, d = byte(group, 1, 4)
    local n = CODES[a] * 262144 + CODES[b] * 4096 + (c and CODES[c] * 64 or 0) + (d and CODES[d] or 0)
    local bytes = char(floor(n / 65536), floor(n / 256) % 256, n % 256)
    return sub(bytes, 1, #group - 1)
  end))
end

